//! Snapshots: copies of a guest's disks, memory and state that depend on nothing else.
//!
//! The files come first, then the record: a file without one belongs to a snapshot that was never finished, and is removed
//! when the manager starts.

mod clone;
mod export;
mod files;
mod kept;
mod revert;
mod schedule;
mod suspend;
mod take;

use std::sync::Arc;

use jiff::Timestamp;
use lodge_api::event::Change;
use lodge_api::page::{ListParams, Page};
use lodge_api::snapshot::Snapshot;
use lodge_api::vm::VmSpec;
use lodge_api::{Name, Problem, Size};
use lodge_block::datastore::Datastore;
use lodge_store::{Batch, Record, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::files::{Part, disk_of_file, open, open_disk, remove_unrecorded};
pub(crate) use self::kept::kept_for;
pub(crate) use self::schedule::check as check_schedule;
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking};
use crate::filter::Field;
use crate::{Caller, IfMatch, Manager};

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("vm", "/vm"),
    ("memory", "/memory"),
    ("scheduled", "/scheduled"),
];

/// What an operation is said to do while it copies disks.
const COPYING: &str = "copying disks";

/// A snapshot as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    id: Uuid,
    name: Name,
    description: String,
    vm: Name,
    vm_id: Uuid,
    /// Taken by the guest's schedule.
    #[serde(default)]
    scheduled: bool,
    /// The backup target whose next backup begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept_for: Option<Uuid>,
    memory: bool,
    spec: VmSpec,
    /// The disks that were copied, in the order of `spec`.
    disks: Vec<Uuid>,
    /// The datastores that their copies are on; the host's own data storage for those that are missing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    datastores: Vec<Option<Uuid>>,
    /// UEFI variables were copied.
    variables: bool,
    created_at: Timestamp,
}

impl Record for SnapshotRecord {
    const TABLE: &'static str = "snapshots";
    const SCHEMA: u32 = 1;
}

impl Object for SnapshotRecord {
    const KIND: &'static str = "snapshot";
    const PATH: &'static str = "snapshots";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

impl SnapshotRecord {
    /// The datastore that the copy of a disk is on.
    fn datastore_of(&self, number: usize) -> Option<Uuid> {
        self.datastores.get(number).copied().flatten()
    }

    /// Whether any copy is on that datastore.
    pub(crate) fn is_on(&self, datastore: Uuid) -> bool {
        self.datastores.contains(&Some(datastore))
    }

    /// Everything it consists of.
    fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = (0..self.disks.len()).map(Part::Disk).collect();
        if self.memory {
            parts.extend([Part::State, Part::Memory]);
        }
        if self.variables {
            parts.push(Part::Variables);
        }
        parts
    }
}

impl Core {
    /// Where a part of a snapshot is.
    fn place_of(&self, snapshot: &SnapshotRecord, part: Part) -> Result<Arc<Datastore>, Problem> {
        match part {
            Part::Disk(number) => {
                let folders = self.datastores.folders(snapshot.datastore_of(number))?;
                Ok(folders.saved)
            }
            Part::Memory | Part::State | Part::Variables => Ok(self.saved.clone()),
        }
    }

    /// The parts that are where they can be reached, with their places.
    fn parts_of(&self, snapshot: &SnapshotRecord) -> Vec<(Arc<Datastore>, Part)> {
        let parts = snapshot.parts().into_iter();
        let place = |part| Some((self.place_of(snapshot, part).ok()?, part));
        parts.filter_map(place).collect()
    }

    fn snapshot_of(&self, record: &Versioned<SnapshotRecord>) -> Snapshot {
        let snapshot = &record.value;
        let allocated = |part| {
            let name = files::name(snapshot.id, part).ok()?;
            let saved = self.place_of(snapshot, part).ok()?;
            Some(saved.info(&name).ok()?.allocated)
        };
        Snapshot {
            id: snapshot.id,
            name: snapshot.name.clone(),
            description: snapshot.description.clone(),
            vm: snapshot.vm.clone(),
            vm_id: snapshot.vm_id,
            scheduled: snapshot.scheduled,
            memory: snapshot.memory,
            spec: snapshot.spec.clone(),
            allocated: Size(snapshot.parts().into_iter().filter_map(allocated).sum()),
            created_at: snapshot.created_at,
            revision: record.revision,
        }
    }
}

impl Manager {
    /// By name. Filter fields: `id name vm memory scheduled`.
    pub async fn snapshot_list(&self, params: ListParams) -> Result<Page<Snapshot>, Problem> {
        let core = self.core.clone();
        // Files are asked, which may take their time.
        blocking(move || {
            let records = core.snapshot();
            let view = |record: &_| core.snapshot_of(record);
            catalogue::page::<SnapshotRecord, _>(&records, &params, FIELDS, view, |view| &view.name)
        })
        .await
    }

    /// One snapshot, by name or id.
    pub async fn snapshot_view(&self, key: &str) -> Result<Snapshot, Problem> {
        let record = catalogue::find(&self.core.snapshot(), key)?;
        let core = self.core.clone();
        blocking(move || Ok(core.snapshot_of(&record))).await
    }

    /// Deletes a snapshot. Guests that were started from it run on.
    pub async fn snapshot_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<SnapshotRecord>(&key, if_match).await?;
            let record = held.old.value.clone();
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, &held.old)?;
            core.commit(batch).await?;
            core.make_known(&caller, "snapshot_delete", record.target(), Change::Deleted);
            // What is on a datastore that is missing is removed when that is there again.
            let parts = core.parts_of(&record);
            blocking(move || {
                files::remove(record.id, &parts);
                Ok(())
            })
            .await
        })
        .await
    }
}
