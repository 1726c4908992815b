//! Making one folder the same as another.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use lodge_block::copy::{self, CopyError};

/// Hears of each piece that was copied, in bytes.
pub(super) type Progress<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Makes `to` hold what `from` holds: files with their holes, modes and times. What is the same already is left alone; what `from`
/// does not have is removed. The folder `leave` of `from` itself is passed over.
///
/// # Errors
/// When something cannot be read or written, or is neither a file nor a folder.
pub(super) fn mirror(
    from: &Path,
    to: &Path,
    leave: Option<&str>,
    progress: Progress<'_>,
) -> Result<(), CopyError> {
    let failed = |what| move |source| CopyError::Host { what, source };
    fs::create_dir_all(to).map_err(failed("making a folder"))?;
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(from).map_err(failed("listing a folder"))? {
        let entry = entry.map_err(failed("listing a folder"))?;
        let name = entry.file_name();
        if leave.is_some_and(|leave| name == leave) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        known.insert(name);
        let status = fs::symlink_metadata(&source).map_err(failed("reading a file's status"))?;
        if status.is_dir() {
            mirror(&source, &target, None, progress)?;
        } else if status.is_file() {
            if !is_same(&status, &target) {
                copy_file(&source, &target, &status, progress)?;
            }
        } else if !status.file_type().is_socket() && !status.file_type().is_fifo() {
            tracing::warn!(path = %source.display(), "neither a file nor a folder; it is left behind");
        }
    }
    remove_others(to, &known, leave).map_err(failed("removing a file"))?;
    let status = fs::metadata(from).map_err(failed("reading a folder's status"))?;
    fs::set_permissions(to, status.permissions()).map_err(failed("setting a folder's mode"))
}

/// Bytes of data below `from`.
pub(super) fn size(from: &Path, leave: Option<&str>) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if leave.is_some_and(|leave| entry.file_name() == leave) {
            continue;
        }
        let status = fs::symlink_metadata(entry.path())?;
        sum += if status.is_dir() {
            size(&entry.path(), None)?
        } else {
            status.blocks() * 512
        };
    }
    Ok(sum)
}

fn is_same(source: &Metadata, target: &Path) -> bool {
    fs::symlink_metadata(target).is_ok_and(|target| {
        target.is_file()
            && target.len() == source.len()
            && target.modified().ok() == source.modified().ok()
    })
}

fn copy_file(
    source: &Path,
    target: &Path,
    status: &Metadata,
    progress: Progress<'_>,
) -> Result<(), CopyError> {
    let failed = |what| move |source| CopyError::Host { what, source };
    let _ = fs::remove_file(target);
    let from = File::open(source).map_err(failed("opening a file"))?;
    let to = File::options()
        .write(true)
        .create_new(true)
        .open(target)
        .map_err(failed("making a file"))?;
    let mut told = 0;
    copy::sparse(&from, &to, &mut |at| {
        let piece = at.copied - told;
        told = at.copied;
        progress(piece)
    })?;
    to.set_permissions(status.permissions())
        .map_err(failed("setting a file's mode"))?;
    let modified = status
        .modified()
        .map_err(failed("reading a file's status"))?;
    to.set_modified(modified)
        .map_err(failed("setting a file's time"))
}

fn remove_others(
    folder: &Path,
    known: &BTreeSet<std::ffi::OsString>,
    leave: Option<&str>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if known.contains(&name) || leave.is_some_and(|leave| name == leave) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn all(from: &Path, to: &Path, leave: Option<&str>) -> u64 {
        let mut sum = 0;
        mirror(from, to, leave, &mut |piece| {
            sum += piece;
            ControlFlow::Continue(())
        })
        .unwrap();
        sum
    }

    #[test]
    fn a_second_pass_brings_what_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("disks")).unwrap();
        fs::create_dir_all(from.join("store")).unwrap();
        fs::write(from.join("disks/a"), [1; 10_000]).unwrap();
        fs::write(from.join("disks/b"), "b").unwrap();
        fs::write(from.join("store/db"), "live").unwrap();
        fs::set_permissions(from.join("disks/b"), fs::Permissions::from_mode(0o600)).unwrap();
        let sparse = File::create(from.join("disks/sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();

        assert!(all(&from, &to, Some("store")) >= 10_001);
        assert_eq!(fs::read(to.join("disks/a")).unwrap(), [1; 10_000]);
        assert_eq!(
            fs::metadata(to.join("disks/b")).unwrap().mode() & 0o777,
            0o600
        );
        let copied = fs::metadata(to.join("disks/sparse")).unwrap();
        assert!(copied.len() == 1 << 30 && copied.blocks() < 100);
        assert!(!to.join("store").exists());
        assert!(size(&from, Some("store")).unwrap() < 1 << 20);

        fs::remove_file(from.join("disks/a")).unwrap();
        fs::write(from.join("disks/c"), "c").unwrap();
        fs::write(from.join("disks/b"), "longer").unwrap();
        all(&from, &to, None);
        let names = |folder: &Path| -> BTreeSet<_> {
            let entries = fs::read_dir(folder).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(&to.join("disks")), names(&from.join("disks")));
        assert_eq!(fs::read(to.join("disks/b")).unwrap(), b"longer");
        assert_eq!(fs::read(to.join("store/db")).unwrap(), b"live");
        assert_eq!(all(&from, &to, None), 0, "nothing is copied twice");
    }

    #[test]
    fn it_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("a"), "a").unwrap();
        let stopped = mirror(&from, &to, None, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(CopyError::Cancelled)));
    }
}
