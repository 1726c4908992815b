//! Downloading disks, images and VMs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lodge_api::snapshot::Snapshot;
use lodge_client::{Client, ClientError, encode_segment};

use super::path;
use crate::context::Context;
use crate::target::Target;
use crate::{output, progress};

/// Blocks of zeroes of this size become holes of the file.
const BLOCK: usize = 4096;

/// What is downloaded, and to where.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// [REMOTE:]NAME
    name: Target,
    /// The file to write; it must not exist
    file: PathBuf,
    /// Format; without, what the file's name ends with
    #[arg(long, value_enum)]
    format: Option<ExportFormat>,
}

/// What a disk is sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// As it is
    Raw,
    /// QEMU's, version 3
    Qcow2,
    /// VMware's streamOptimized, compressed
    Vmdk,
}

impl ExportFormat {
    fn of(file: &Path) -> Self {
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("qcow2") => Self::Qcow2,
            Some("vmdk") => Self::Vmdk,
            _ => Self::Raw,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
        }
    }
}

/// Downloads one of `collection`, disks or images.
pub(super) async fn export(
    context: &Context,
    collection: &str,
    arguments: Export,
) -> Result<(), ClientError> {
    let Export { name, file, format } = arguments;
    let format = format.unwrap_or_else(|| ExportFormat::of(&file)).as_str();
    let url = format!("{}/content?format={format}", path(collection, &name.name));
    download(context, &name, &url, file, format).await
}

/// A VM, and the archive it becomes.
#[derive(Debug, Args)]
pub(crate) struct ExportVm {
    /// [REMOTE:]NAME
    name: Target,
    /// The archive to write, FILE.ova; it must not exist
    file: PathBuf,
}

/// Downloads a VM with its disks.
pub(super) async fn export_vm(context: &Context, arguments: ExportVm) -> Result<(), ClientError> {
    let ExportVm { name, file } = arguments;
    let url = format!("{}/ova", path("vms", &name.name));
    download(context, &name, &url, file, "OVA").await
}

/// A snapshot, and what of it is downloaded.
#[derive(Debug, Args)]
pub(crate) struct ExportSnapshot {
    #[command(flatten)]
    what: Export,
    /// The disk, by the name it had then; not needed for the only one
    #[arg(long)]
    disk: Option<lodge_api::Name>,
    /// Only what is another since this earlier snapshot of the VM, as a qcow2 upon the image of that one
    #[arg(long, value_name = "SNAPSHOT")]
    since: Option<String>,
    /// With --since: the file that the earlier snapshot was exported to, in the same folder
    #[arg(long, value_name = "FILE", requires = "since")]
    backing: Option<PathBuf>,
}

/// Downloads what a VM was at one moment: all of it, or a disk.
pub(super) async fn export_snapshot(
    context: &Context,
    arguments: ExportSnapshot,
) -> Result<(), ClientError> {
    let ExportSnapshot {
        what,
        disk,
        since,
        backing,
    } = arguments;
    let own = path("snapshots", &what.name.name);
    let is_archive = |file: &Path| {
        file.extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("ova"))
    };
    if disk.is_none() && since.is_none() && what.format.is_none() && is_archive(&what.file) {
        return download(context, &what.name, &format!("{own}/ova"), what.file, "OVA").await;
    }
    let disk = match disk {
        Some(disk) => disk,
        None => only_disk(context, &what.name, &own).await?,
    };
    let format = what
        .format
        .unwrap_or_else(|| ExportFormat::of(&what.file))
        .as_str();
    let mut url = format!("{own}/disks/{disk}/content?format={format}");
    if let Some(since) = since {
        url += &format!("&since={}", encode_segment(&since));
    }
    if let Some(backing) = backing {
        let name = beside(&backing, &what.file)?;
        url += &format!("&backing={}", encode_segment(&name));
    }
    download(context, &what.name, &url, what.file, format).await
}

/// The name of a file that has to lie in the folder of another.
fn beside(file: &Path, other: &Path) -> Result<String, ClientError> {
    let usage = |text: String| ClientError::Usage(text);
    let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
    if folder(file) != folder(other) {
        return Err(usage(format!(
            "{} and {} have to be in the same folder",
            file.display(),
            other.display()
        )));
    }
    if !file.exists() {
        return Err(usage(format!("{} is not there", file.display())));
    }
    let name = file.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| usage(format!("{} is no name for it", file.display())))
}

async fn only_disk(
    context: &Context,
    name: &Target,
    url: &str,
) -> Result<lodge_api::Name, ClientError> {
    let client = context.client(name.remote.as_deref())?;
    let snapshot: Snapshot = client.get(url).await?;
    match snapshot.spec.disks.as_slice() {
        [only] => Ok(only.disk.clone()),
        disks => {
            let names: Vec<&str> = disks.iter().map(|disk| disk.disk.as_str()).collect();
            let text = format!(
                "say which disk by --disk, of these: {}; or give FILE.ova for all of it",
                names.join(", ")
            );
            Err(ClientError::Usage(text))
        }
    }
}

/// Writes what is at `url` to a file.
async fn download(
    context: &Context,
    name: &Target,
    url: &str,
    file: PathBuf,
    format: &str,
) -> Result<(), ClientError> {
    let client = context.client(name.remote.as_deref())?;
    let (file, length) = fetch(&client, url, file).await?;
    let text = format!(
        "{} written as {format}, {}",
        file.display(),
        lodge_api::Size(length)
    );
    output::done(context.format, &text);
    Ok(())
}

/// Writes what is at `url` to a file that is not there yet; returns its name and length.
pub(super) async fn fetch(
    client: &Client,
    url: &str,
    file: PathBuf,
) -> Result<(PathBuf, u64), ClientError> {
    let mut target = Partial::create(file)?;
    let bar = progress::amount("downloading");
    let begun = |length: Option<u64>| {
        if let Some(length) = length {
            progress::set_total(&bar, length);
        }
    };
    let taken = client
        .download(url, begun, |piece| {
            bar.inc(piece.len() as u64);
            target.append(&piece)
        })
        .await;
    bar.finish_and_clear();
    taken?;
    target.finish()
}

/// A file that is removed again unless it becomes whole.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    whole: bool,
}

impl Partial {
    fn create(path: PathBuf) -> Result<Self, ClientError> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        match file {
            Ok(file) => Ok(Self {
                path,
                file,
                length: 0,
                whole: false,
            }),
            Err(source) => Err(failed(&path, source)),
        }
    }

    /// Writes what is not zero.
    fn append(&mut self, piece: &[u8]) -> Result<(), ClientError> {
        for block in piece.chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                self.file
                    .write_all_at(block, self.length)
                    .map_err(|source| failed(&self.path, source))?;
            }
            self.length += block.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(PathBuf, u64), ClientError> {
        self.file
            .set_len(self.length)
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.sync_all())
            .map_err(|source| failed(&self.path, source))?;
        self.whole = true;
        Ok((self.path.clone(), self.length))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            // It may be gone already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A local file that cannot be read or written.
pub(super) fn failed(path: &Path, source: io::Error) -> ClientError {
    ClientError::File {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        let mut file = Partial::create(path.clone()).unwrap();
        file.append(&[1; 5000]).unwrap();
        file.append(&[0; 9000]).unwrap();
        assert!(Partial::create(path.clone()).is_err(), "it is there");
        let (_, length) = file.finish().unwrap();
        assert_eq!(length, 14000);
        let content = std::fs::read(&path).unwrap();
        assert!(content == [[1; 5000].as_slice(), &[0; 9000]].concat());
        let other = directory.path().join("other");
        let mut file = Partial::create(other.clone()).unwrap();
        file.append(&[1; 10]).unwrap();
        drop(file);
        assert!(!other.exists());
    }

    #[test]
    fn formats_are_known_by_names() {
        let of = |name: &str| ExportFormat::of(Path::new(name));
        assert_eq!(of("a.QCOW2"), ExportFormat::Qcow2);
        assert_eq!(of("a.b.vmdk"), ExportFormat::Vmdk);
        assert_eq!(of("vmdk"), ExportFormat::Raw);
    }
}
