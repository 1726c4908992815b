//! Datastores as the API shows them, and their names.

use lodge_api::Size;
use lodge_api::datastore::{DEFAULT, Datastore, DatastorePatch};
use lodge_api::event::Change;
use lodge_api::page::{ListParams, Page};
use lodge_api::system::{Storage, StorageHealth};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_block::datastore::Space;
use lodge_store::{Batch, Snapshot, Versioned};
use uuid::Uuid;

use super::DatastoreRecord;
use super::record::Backing;
use crate::catalogue::{self, Object};
use crate::core::{Core, internal};
use crate::disks::DiskRecord;
use crate::filter::Field;
use crate::{Caller, DatastoreMetrics, IfMatch, Manager};

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("kind", "/kind"),
    ("health", "/health"),
];

/// The name of the datastore that a record of a disk says it is on.
pub(crate) fn name_of(snapshot: &Snapshot, datastore: Option<Uuid>) -> Result<Name, Problem> {
    let found = match datastore {
        Some(id) => catalogue::find_optional::<DatastoreRecord>(snapshot, &id.to_string())?,
        None => None,
    };
    match found {
        Some(record) => Ok(record.value.name),
        None => DEFAULT
            .parse()
            .map_err(|_| internal("the default datastore's name")),
    }
}

impl Core {
    pub(super) fn datastore_of(
        &self,
        record: &Versioned<DatastoreRecord>,
        disks: &[Versioned<DiskRecord>],
    ) -> Datastore {
        let datastore = &record.value;
        let here = disks
            .iter()
            .filter(|disk| disk.value.datastore == datastore.key());
        let sizes: Vec<u64> = here.map(|disk| disk.value.size()).collect();
        let mut view = Datastore {
            id: datastore.id,
            name: datastore.name.clone(),
            kind: datastore.backing.kind(),
            disk: None,
            directory: None,
            nfs: None,
            device: None,
            shares_extents: false,
            size: Size(0),
            free: Size(0),
            provisioned: Size(sizes.iter().sum()),
            disks: u32::try_from(sizes.len()).unwrap_or(u32::MAX),
            health: Default::default(),
            problem: None,
            created_at: datastore.created_at,
            revision: record.revision,
        };
        match &datastore.backing {
            Backing::System => self.show_system(&mut view),
            Backing::Disk { disk } => view.disk = Some(disk.clone()),
            Backing::Directory { path } => view.directory = Some(path.display().to_string()),
            Backing::Nfs { nfs } => view.nfs = Some(nfs.clone()),
        }
        if datastore.key().is_some() {
            self.show_seen(&mut view, datastore);
        }
        view
    }

    /// Numbers of all of them.
    pub(crate) fn datastore_metrics(&self, snapshot: &Snapshot) -> Vec<DatastoreMetrics> {
        let all = catalogue::list::<DatastoreRecord>(snapshot);
        let disks = catalogue::list(snapshot);
        let views = all.iter().map(|record| self.datastore_of(record, &disks));
        views
            .map(|view| DatastoreMetrics {
                usable: matches!(view.health, StorageHealth::Sound | StorageHealth::Low),
                size: view.size.bytes(),
                free: view.free.bytes(),
                provisioned: view.provisioned.bytes(),
                name: view.name,
            })
            .collect()
    }

    fn show_system(&self, view: &mut Datastore) {
        let Storage {
            device,
            size,
            free,
            health,
            ..
        } = self.storage();
        view.device = device;
        (view.size, view.free, view.health) = (size, free, health);
        view.problem = self.storage_warning();
        let disks = &self.datastores.system().disks;
        view.shares_extents = disks.shares_extents().unwrap_or(false);
    }

    fn show_seen(&self, view: &mut Datastore, record: &DatastoreRecord) {
        let seen = self.datastores.cell(record.id).seen();
        let of = |part: fn(Space) -> u64| Size(seen.space.map_or(0, part));
        view.size = of(|space| space.total);
        view.free = of(|space| space.available);
        view.health = seen.health;
        view.problem = self.datastore_warning(record);
        if let Some(home) = seen.home {
            view.device = home.device.map(|device| device.display().to_string());
            view.shares_extents = home.shares_extents;
        }
    }
}

impl Manager {
    /// By name. Filter fields: `id name kind health`.
    pub fn datastore_list(&self, params: &ListParams) -> Result<Page<Datastore>, Problem> {
        let snapshot = self.core.snapshot();
        let disks = catalogue::list(&snapshot);
        let view = |record: &_| self.core.datastore_of(record, &disks);
        catalogue::page(&snapshot, params, FIELDS, view, |view| &view.name)
    }

    /// One datastore, by name or id.
    pub fn datastore_view(&self, key: &str) -> Result<Datastore, Problem> {
        let snapshot = self.core.snapshot();
        let record = catalogue::find(&snapshot, key)?;
        Ok(self.core.datastore_of(&record, &catalogue::list(&snapshot)))
    }

    /// Renames a datastore.
    pub async fn datastore_patch(
        &self,
        caller: &Caller,
        key: &str,
        patch: DatastorePatch,
        if_match: IfMatch,
    ) -> Result<Datastore, Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<DatastoreRecord>(&key, if_match).await?;
            let name = patch.name.unwrap_or_else(|| held.old.value.name.clone());
            if name == held.old.value.name {
                return Ok(core.datastore_of(&held.old, &catalogue::list(&held.snapshot)));
            }
            refuse_default(&held.old.value)?;
            catalogue::require_free::<DatastoreRecord>(&held.snapshot, &name)?;
            let new = DatastoreRecord {
                name,
                ..held.old.value.clone()
            };
            let new = core.exchange(Batch::new(), &held.old, new).await?;
            let target = new.value.target();
            core.make_known(&caller, "datastore_change", target, Change::Changed);
            Ok(core.datastore_of(&new, &catalogue::list(&core.snapshot())))
        })
        .await
    }
}

/// Refuses what cannot be done with the datastore that every host has.
pub(super) fn refuse_default(record: &DatastoreRecord) -> Result<(), Problem> {
    match record.backing {
        Backing::System => Err(Problem::new(
            ErrorCode::WrongState,
            format!(
                "the datastore \"{DEFAULT}\" is the host's own data storage, and stays as it is"
            ),
        )),
        Backing::Disk { .. } | Backing::Directory { .. } | Backing::Nfs { .. } => Ok(()),
    }
}
