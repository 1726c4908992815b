//! Backups as they are stored here: what is known of those on targets.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use lodge_api::backup_catalog::{Catalog, Entry};
use lodge_api::{Name, Problem};
use lodge_store::{Batch, Precondition, Record, Snapshot, Versioned};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::catalogue::{self, shown};
use crate::core::Core;

/// A backup as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BackupRecord {
    pub(super) id: Uuid,
    pub(super) target: Uuid,
    pub(super) folder: String,
    pub(super) vm_id: Uuid,
    pub(super) vm: Name,
    pub(super) number: u32,
    pub(super) taken_at: Timestamp,
    pub(super) size: u64,
    pub(super) made_of: BTreeSet<u32>,
    #[serde(default)]
    pub(super) verified: Option<Verified>,
}

/// How a backup was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verified {
    pub(super) at: Timestamp,
    pub(super) good: bool,
    pub(super) found: String,
}

impl Record for BackupRecord {
    const TABLE: &'static str = "backups";
    const SCHEMA: u32 = 1;
}

impl BackupRecord {
    fn new(target: Uuid, folder: &str, vm: &Name, catalog: &Catalog, entry: &Entry) -> Self {
        let mut hash = Sha256::new();
        let (number, taken_at) = (entry.number, entry.taken_at);
        hash.update(format!(
            "{target} {folder} {} {number} {taken_at}",
            catalog.vm
        ));
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        Self {
            // The same whenever the target is looked through.
            id: Builder::from_custom_bytes(id).into_uuid(),
            target,
            folder: folder.to_owned(),
            vm_id: catalog.vm,
            vm: vm.clone(),
            number,
            taken_at,
            size: entry.bytes(),
            made_of: entry.made_of(),
            verified: None,
        }
    }
}

/// All that are known.
pub(super) fn all(snapshot: &Snapshot) -> Vec<Versioned<BackupRecord>> {
    let all = snapshot.list::<BackupRecord>().into_iter();
    all.map(|(_, record)| record).collect()
}

/// The backup of that id.
pub(super) fn find(snapshot: &Snapshot, key: &str) -> Result<Versioned<BackupRecord>, Problem> {
    let id = key.parse::<Uuid>().ok();
    let found = id.map(|id| catalogue::get(snapshot, &id.to_string()));
    let found = found.transpose()?.flatten();
    found.ok_or_else(|| {
        Problem::not_found("backup", shown(key)).with_hint("`lodge backup list` shows their ids")
    })
}

impl Core {
    /// Has the records of a folder say what its list says.
    pub(super) async fn follow_catalog(
        &self,
        target: Uuid,
        folder: &str,
        catalog: &Catalog,
    ) -> Result<(), Problem> {
        // One that says nothing of its guest is called by its folder.
        let vm = catalog.name.clone().or_else(|| folder.parse().ok());
        let vm = vm.unwrap_or_else(|| "unnamed".parse().expect("a valid name"));
        let wanted = catalog.backups.iter();
        let wanted = wanted.map(|entry| BackupRecord::new(target, folder, &vm, catalog, entry));
        let mut wanted: HashMap<Uuid, BackupRecord> =
            wanted.map(|record| (record.id, record)).collect();
        let mut batch = Batch::new();
        let failed = |error| catalogue::record_problem(&error);
        for known in all(&self.snapshot()) {
            let known = known.value;
            if known.target != target || known.folder != folder {
                continue;
            }
            // What it was called then stays, and how it was found.
            if wanted.remove(&known.id).is_none() {
                let key = known.id.to_string();
                batch
                    .delete::<BackupRecord>(&key, Precondition::Any)
                    .map_err(failed)?;
            }
        }
        for record in wanted.values() {
            batch
                .put(record.id.to_string(), record, Precondition::Any)
                .map_err(failed)?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.commit(batch).await.map(drop)
    }

    /// Notes how a backup was found, if it is still there.
    pub(super) async fn note_verified(&self, id: Uuid, verified: Verified) -> Result<(), Problem> {
        let record = find(&self.snapshot(), &id.to_string())?;
        let new = BackupRecord {
            verified: Some(verified),
            ..record.value
        };
        let mut batch = Batch::new();
        batch
            .put(
                id.to_string(),
                &new,
                Precondition::Revision(record.revision),
            )
            .map_err(|error| catalogue::record_problem(&error))?;
        self.commit(batch).await.map(drop)
    }
}
