//! The files of a snapshot.

use std::fs::File;
use std::sync::Arc;

use lodge_api::Problem;
use lodge_block::FileName;
use lodge_block::datastore::{Access, Datastore, DatastoreError};
use lodge_store::Snapshot;
use uuid::Uuid;

use super::{SnapshotRecord, suspend};
use crate::catalogue;
use crate::core::{Core, internal};
use crate::images::datastore_problem;

/// One of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A disk, by its position.
    Disk(usize),
    /// The guest's memory.
    Memory,
    /// All else that makes a guest go on.
    State,
    /// UEFI variables.
    Variables,
}

/// Name of a part's file.
pub(super) fn name(id: Uuid, part: Part) -> Result<FileName, Problem> {
    let name = match part {
        Part::Disk(number) => format!("{id}.disk{number}"),
        Part::Memory => format!("{id}.memory"),
        Part::State => format!("{id}.state"),
        Part::Variables => format!("{id}.variables"),
    };
    FileName::new(&name).map_err(|error| internal(error.to_string()))
}

/// Whose disk a file is, if it is one.
pub(crate) fn disk_of_file(file: &FileName) -> Option<Uuid> {
    let (id, part) = file.as_str().split_once('.')?;
    part.starts_with("disk").then(|| id.parse().ok())?
}

/// Opens a part for reading.
pub(crate) fn open(saved: &Datastore, id: Uuid, part: Part) -> Result<File, Problem> {
    saved
        .open_file(&name(id, part)?, Access::default())
        .map_err(|error| datastore_problem(&error))
}

/// Opens the copy of a disk, by its position, for reading.
pub(crate) fn open_disk(core: &Core, id: Uuid, number: usize) -> Result<File, Problem> {
    let record = catalogue::find::<SnapshotRecord>(&core.snapshot(), &id.to_string())?;
    let part = Part::Disk(number);
    open(&*core.place_of(&record.value, part)?, id, part)
}

/// Removes parts, those of them that are there.
pub(super) fn remove(id: Uuid, parts: &[(Arc<Datastore>, Part)]) {
    for (saved, part) in parts {
        let part = *part;
        let removed = name(id, part).map(|name| saved.remove_file(&name));
        match removed {
            Ok(Ok(()) | Err(DatastoreError::NotFound { .. })) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, %id, ?part, "a file of a snapshot stays for now");
            }
            Err(problem) => tracing::warn!(%problem, %id, "a file of a snapshot stays"),
        }
    }
}

/// Removes files of snapshots that were never finished, or are deleted, and of guests that went on.
pub(crate) fn remove_unrecorded(saved: &Datastore, snapshot: &Snapshot) {
    let files = saved.files().unwrap_or_else(|error| {
        tracing::warn!(%error, "the snapshots cannot be looked through");
        Vec::new()
    });
    for file in files {
        let owner = file.as_str().split('.').next().unwrap_or_default();
        let Ok(id) = owner.parse::<Uuid>() else {
            continue;
        };
        let known = catalogue::find_optional::<SnapshotRecord>(snapshot, owner);
        if known.is_ok_and(|found| found.is_some()) || suspend::owns(snapshot, id) {
            continue;
        }
        match saved.remove_file(&file) {
            Ok(()) => tracing::info!(%file, "removed a file that no snapshot has"),
            Err(error) => tracing::warn!(%file, %error, "a file that is not needed stays"),
        }
    }
}
