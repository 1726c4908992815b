//! Writing one backup: the files of a snapshot, none of which is in a list yet.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use lodge_api::backup_catalog::{Catalog, DiskFile, Entry};
use lodge_api::image::ExportFormat;
use lodge_api::{Name, Problem, Size};
use lodge_block::foreign::Backing;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::place::Folder;
use crate::Manager;
use crate::catalogue::Object as _;
use crate::core::{blocking, internal};
use crate::export::{Opened, Source, Stored, copy_problem, open};
use crate::operations::{OperationHandle, cancelled};
use crate::sessions::hex;
use crate::snapshots::SnapshotRecord;

/// Pieces that wait to be written; more hold the reader back.
const QUEUE: usize = 4;

/// What a backup is made of.
pub(super) struct Job<'a> {
    pub(super) folder: &'a Folder,
    pub(super) number: u32,
    pub(super) snapshot: &'a SnapshotRecord,
    /// The backup before and its snapshot, if only what changed is written.
    pub(super) base: Option<(&'a Entry, &'a SnapshotRecord)>,
    /// What is in the folder.
    pub(super) there: &'a BTreeMap<String, u64>,
}

/// What is read, and the backup upon which it is to be read.
struct Disk {
    source: Source,
    since: Option<u32>,
}

impl Job<'_> {
    fn configuration(&self) -> String {
        format!("vm.{:04}.json", self.number)
    }

    fn variables(&self) -> String {
        format!("nvram.{:04}.json", self.number)
    }

    fn disk(&self, disk: &Name) -> String {
        format!("{disk}.{:04}.qcow2", self.number)
    }

    /// All files that it may have written.
    pub(super) fn files(&self) -> Vec<String> {
        let disks = self.snapshot.spec().disks.iter();
        let disks = disks.map(|entry| self.disk(&entry.disk));
        disks
            .chain([self.configuration(), self.variables()])
            .collect()
    }

    /// How a disk is to be read: upon that of the backup before, where all of that is there.
    fn source(&self, disk: &Name) -> Result<Disk, Problem> {
        let (number, id) = self
            .snapshot
            .disk(disk)
            .ok_or_else(|| internal("a snapshot without its disk"))?;
        let now = Stored::Saved(self.snapshot.id(), number);
        let base = self.base.and_then(|(entry, snapshot)| {
            let below = entry.disks.get(disk)?;
            let (number, of) = snapshot.disk(disk)?;
            let whole = self.there.get(&below.file) == Some(&below.bytes);
            (whole && of == id).then_some((entry, snapshot, number, below))
        });
        Ok(match base {
            None => Disk {
                source: Source::One(now, disk.clone(), ExportFormat::Qcow2),
                since: None,
            },
            Some((entry, snapshot, number, below)) => Disk {
                source: Source::Changes {
                    now,
                    base: Stored::Saved(snapshot.id(), number),
                    backing: Some(Backing {
                        name: below.file.clone(),
                        qcow2: true,
                    }),
                },
                since: Some(entry.number),
            },
        })
    }
}

impl Manager {
    /// Writes the files of a backup.
    pub(super) async fn write_backup(
        &self,
        job: &Job<'_>,
        handle: &OperationHandle,
    ) -> Result<Entry, Problem> {
        let mut entry = Entry {
            number: job.number,
            taken_at: job.snapshot.created_at(),
            snapshot: job.snapshot.name().clone(),
            configuration: job.configuration(),
            variables: None,
            disks: BTreeMap::new(),
            checksums: BTreeMap::new(),
        };
        let configuration = job.configuration();
        write_json(job, &mut entry, configuration, job.snapshot.spec()).await?;
        let variables = self.snapshot_nvram(&job.snapshot.id().to_string()).await?;
        if !variables.items.is_empty() {
            write_json(job, &mut entry, job.variables(), &variables.items).await?;
            entry.variables = Some(job.variables());
        }
        for disk in &job.snapshot.spec().disks {
            let name = &disk.disk;
            let begun = Instant::now();
            let file = self.write_disk(job, name, handle).await?;
            let what = match file.since {
                Some(since) => format!("what changed since backup {since}"),
                None => "all of it".to_owned(),
            };
            let bytes = file.bytes as f64 / begun.elapsed().as_secs_f64().max(0.001);
            let rate = Size(bytes as u64);
            handle.log(format!("{name}: {}, {what}, {rate}/s", Size(file.bytes)));
            entry.disks.insert(name.clone(), file);
        }
        Ok(entry)
    }

    async fn write_disk(
        &self,
        job: &Job<'_>,
        disk: &Name,
        handle: &OperationHandle,
    ) -> Result<DiskFile, Problem> {
        let Disk { source, since } = job.source(disk)?;
        let (core, opening) = (self.core.clone(), handle.clone());
        let opened = blocking(move || open(&core, &source, &opening)).await?;
        let most = opened.export.length().unwrap_or(opened.size);
        let (sender, pieces) = mpsc::channel(QUEUE);
        let phase = format!("writing {disk}");
        let reporting = handle.clone();
        let made = blocking(move || give(opened, &sender, &reporting, &phase));
        let file = job.disk(disk);
        let stored = job.folder.store(&file, most, pieces);
        let (made, stored) = tokio::join!(made, stored);
        // What could not be made is the reason why it was not stored.
        let (bytes, sha256) = match (made, stored) {
            (Ok(made), Ok(())) => made,
            (Err(problem), _) if problem.detail != NOT_TAKEN => return Err(problem),
            (_, Err(problem)) | (Err(problem), Ok(())) => return Err(problem),
        };
        Ok(DiskFile {
            file,
            bytes,
            sha256: Some(sha256),
            since,
        })
    }
}

/// How a disk ends that the target does not take.
const NOT_TAKEN: &str = "the target takes no more";

/// Makes the image of a disk, and counts and sums what it gives away.
fn give(
    opened: Opened,
    to: &mpsc::Sender<io::Result<Bytes>>,
    handle: &OperationHandle,
    phase: &str,
) -> Result<(u64, String), Problem> {
    let Opened {
        holds: _holds,
        mut export,
        size,
    } = opened;
    let total = export.length().unwrap_or(size);
    let (mut bytes, mut hash) = (0_u64, Sha256::new());
    loop {
        let mut piece = Vec::new();
        let made = match handle.is_cancelled() {
            true => Err(cancelled()),
            false => export.next_piece(&mut piece).map_err(copy_problem),
        };
        if let Err(problem) = made {
            let _ = to.blocking_send(Err(io::Error::other(problem.detail.clone())));
            return Err(problem);
        }
        let ended = piece.is_empty();
        bytes += piece.len() as u64;
        hash.update(&piece);
        handle.progress(phase, bytes.min(total), total);
        if to.blocking_send(Ok(piece.into())).is_err() {
            return Err(internal(NOT_TAKEN));
        }
        if ended {
            return Ok((bytes, hex(&hash.finalize())));
        }
    }
}

async fn write_json<T: Serialize>(
    job: &Job<'_>,
    entry: &mut Entry,
    file: String,
    content: &T,
) -> Result<(), Problem> {
    let text = serde_json::to_vec_pretty(content)
        .map_err(|error| internal(format!("a file of JSON: {error}")))?;
    let sha256 = hex(&Sha256::digest(&text));
    job.folder.write(&file, text).await?;
    entry.checksums.insert(file, sha256);
    Ok(())
}

/// Whether a file is one that a backup writes and that belongs to none in the list: a leftover.
pub(super) fn is_leftover(catalog: &Catalog, file: &str) -> bool {
    let mut parts = file.rsplitn(3, '.');
    let (end, number, name) = (parts.next(), parts.next(), parts.next());
    let numbered = number.is_some_and(|number| {
        number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let ours = matches!(
        (name, end),
        (Some("vm" | "nvram"), Some("json")) | (Some(_), Some("qcow2"))
    );
    numbered
        && ours
        && !catalog
            .backups
            .iter()
            .any(|one| one.files().any(|known| known == file))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_files_of_backups_are_leftovers() {
        let mut catalog = Catalog::of(Uuid::nil());
        let listed = r#"{"number": 1, "taken_at": "2026-11-30T10:00:00Z", "snapshot": "backup-1", "configuration": "vm.0001.json",
            "disks": {"data": {"file": "data.0001.qcow2", "bytes": 5}}}"#;
        catalog.backups.push(serde_json::from_str(listed).unwrap());
        for left in [
            "data.0002.qcow2",
            "a.b.0012.qcow2",
            "vm.0002.json",
            "nvram.0001.json",
        ] {
            assert!(is_leftover(&catalog, left), "{left}");
        }
        for other in [
            "data.0001.qcow2",
            "vm.0001.json",
            "backups.json",
            "backups.lock",
            "notes.txt",
            "data.qcow2",
            "newest.old.qcow2",
            "x.0001.json",
            "0001.qcow2",
        ] {
            assert!(!is_leftover(&catalog, other), "{other}");
        }
    }
}
