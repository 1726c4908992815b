//! Datastores as stored.

use std::path::PathBuf;

use jiff::Timestamp;
use lodge_api::datastore::{DEFAULT, DatastoreKind, Nfs};
use lodge_api::{Name, Problem};
use lodge_store::{Batch, Record, Snapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::core::internal;

/// A datastore as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DatastoreRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    pub(crate) backing: Backing,
    /// Files that no record names are disks whose records were lost, and not leftovers.
    #[serde(default)]
    pub(crate) unsettled: bool,
    pub(crate) created_at: Timestamp,
}

/// What a datastore is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Backing {
    /// The filesystem of the host's data.
    System,
    /// A disk, with what people call it by. It is found by the UUID of the filesystem, which is the datastore's id.
    Disk { disk: String },
    /// A directory that is there already.
    Directory { path: PathBuf },
    /// A directory of an NFS server, which the host mounts.
    Nfs { nfs: Nfs },
}

impl Backing {
    pub(crate) fn kind(&self) -> DatastoreKind {
        match self {
            Self::System => DatastoreKind::System,
            Self::Disk { .. } => DatastoreKind::Disk,
            Self::Directory { .. } => DatastoreKind::Directory,
            Self::Nfs { .. } => DatastoreKind::Nfs,
        }
    }
}

impl Record for DatastoreRecord {
    const TABLE: &'static str = "datastores";
    const SCHEMA: u32 = 1;
}

impl Object for DatastoreRecord {
    const KIND: &'static str = "datastore";
    const PATH: &'static str = "datastores";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

impl DatastoreRecord {
    /// Whether it is on the disk that people call so.
    pub(crate) fn is_on_disk(&self, name: &str) -> bool {
        matches!(&self.backing, Backing::Disk { disk } if disk == name)
    }

    /// What records of disks on it say: nothing where it is the host's own data storage.
    pub(crate) fn key(&self) -> Option<Uuid> {
        (self.backing != Backing::System).then_some(self.id)
    }
}

/// The batch that makes the datastore which every host has, where it is missing.
pub(crate) fn missing_default(snapshot: &Snapshot) -> Result<Option<Batch>, Problem> {
    if catalogue::find_optional::<DatastoreRecord>(snapshot, DEFAULT)?.is_some() {
        return Ok(None);
    }
    let mut batch = Batch::new();
    let record = DatastoreRecord {
        id: Uuid::now_v7(),
        name: DEFAULT
            .parse()
            .map_err(|_| internal("the default datastore's name"))?,
        backing: Backing::System,
        unsettled: false,
        created_at: Timestamp::now(),
    };
    catalogue::insert(&mut batch, &record)?;
    Ok(Some(batch))
}

/// The datastore that a request names at `pointer`, or the one that every host has.
pub(crate) fn require(
    snapshot: &Snapshot,
    name: Option<&Name>,
    pointer: &str,
) -> Result<Option<Uuid>, Problem> {
    let Some(name) = name else { return Ok(None) };
    let found = catalogue::find_optional::<DatastoreRecord>(snapshot, name.as_str())?;
    let found = found.ok_or_else(|| {
        Problem::invalid(pointer, format!("there is no datastore \"{name}\""))
            .with_hint("`lodge datastore list` shows those there are")
    })?;
    Ok(found.value.key())
}

/// Refuses what would be on a datastore that was deleted meanwhile.
pub(crate) fn require_known(snapshot: &Snapshot, datastore: Option<Uuid>) -> Result<(), Problem> {
    match datastore {
        Some(id) => catalogue::find::<DatastoreRecord>(snapshot, &id.to_string()).map(drop),
        None => Ok(()),
    }
}
