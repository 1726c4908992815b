//! Datastores that are not wanted any more, and those whose disks have become larger.

use std::time::Duration;

use lodge_api::datastore::Datastore;
use lodge_api::event::Change;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::disk::grow_xfs;
use lodge_store::{Batch, Snapshot};

use super::home::{mount_point, remove_empty_folders};
use super::record::Backing;
use super::view::refuse_default;
use super::{DatastoreRecord, home};
use crate::backups::TargetRecord;
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking, internal};
use crate::disks::DiskRecord;
use crate::snapshots::SnapshotRecord;
use crate::{Caller, IfMatch, Manager};

/// How long a look at it may take that is just under way.
const PATIENCE: Duration = Duration::from_secs(20);

impl Manager {
    /// Forgets a datastore with nothing on it. Its disk is left as it is, and is not used any more.
    ///
    /// # Errors
    /// `InUse` while disks or snapshots are on it, whether or not it is there.
    pub async fn datastore_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<DatastoreRecord>(&key, if_match).await?;
            let record = held.old.value.clone();
            refuse_default(&record)?;
            require_unused(&held.snapshot, &record)?;
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, &held.old)?;
            core.commit(batch).await?;
            drop(held);
            core.let_go(&record).await;
            core.make_known(
                &caller,
                "datastore_delete",
                record.target(),
                Change::Deleted,
            );
            Ok(())
        })
        .await
    }

    /// Has a datastore take all of a disk that has become larger.
    ///
    /// # Errors
    /// `WrongState` for one that is not on a disk of its own, or not there.
    pub async fn datastore_grow(&self, caller: &Caller, key: &str) -> Result<Datastore, Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let record = catalogue::find::<DatastoreRecord>(&core.snapshot(), &key)?;
            let id = record.value.id;
            if !matches!(record.value.backing, Backing::Disk { .. }) {
                let detail = "the datastore is not on a disk of its own";
                return Err(Problem::new(ErrorCode::WrongState, detail));
            }
            core.datastores.folders(Some(id))?;
            let at = mount_point(&core.config.run_dir, id);
            let device = core
                .datastores
                .cell(id)
                .seen()
                .home
                .and_then(|home| home.device);
            blocking(move || {
                // Disks behind a SCSI controller do not say that they have grown.
                if let Some(device) = device {
                    home::look_at_size(&device);
                }
                grow_xfs(&at).map_err(|error| internal(error.to_string()))
            })
            .await?;
            core.look_at(&record.value).await;
            let target = record.value.target();
            core.make_known(&caller, "datastore_grow", target, Change::Changed);
            Ok(core.datastore_of(&record, &catalogue::list(&core.snapshot())))
        })
        .await
    }
}

impl Core {
    /// Closes one that is not recorded any more. What cannot be closed now goes with the host.
    async fn let_go(&self, record: &DatastoreRecord) {
        let Some(cell) = self.datastores.find(record.id) else {
            return;
        };
        let looking = tokio::time::timeout(PATIENCE, cell.changing.lock()).await;
        self.datastores.forget(record.id);
        let home = cell.seen().home;
        cell.update(|seen| seen.home = None);
        let backing = record.backing.clone();
        let left = blocking(move || {
            if let Some(home) = &home {
                home.clear_claimed();
            }
            let left = home.map_or(Ok(()), home::Home::leave);
            if let Backing::Directory { path } = backing {
                remove_empty_folders(&path);
            }
            left
        });
        if let Err(problem) = left.await {
            tracing::warn!(%problem, name = %record.name, "a deleted datastore stays mounted");
        }
        drop(looking);
    }
}

fn require_unused(snapshot: &Snapshot, record: &DatastoreRecord) -> Result<(), Problem> {
    let disks = catalogue::list::<DiskRecord>(snapshot).into_iter();
    let disks = disks.filter(|disk| disk.value.datastore == record.key());
    refuse(record, "disk", disks.map(|disk| disk.value.name))?;
    let targets = catalogue::list::<TargetRecord>(snapshot).into_iter();
    let targets = targets.filter(|target| target.value.is_on(record.id));
    refuse(
        record,
        "backup target",
        targets.map(|target| target.value.name().clone()),
    )?;
    let snapshots = catalogue::list::<SnapshotRecord>(snapshot).into_iter();
    let snapshots = snapshots.filter(|snapshot| snapshot.value.is_on(record.id));
    refuse(
        record,
        "snapshot",
        snapshots.map(|snapshot| snapshot.value.name().clone()),
    )
}

fn refuse(
    record: &DatastoreRecord,
    kind: &str,
    names: impl Iterator<Item = Name>,
) -> Result<(), Problem> {
    let names: Vec<Name> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    let plural = if names.len() == 1 { "" } else { "s" };
    let detail = format!(
        "the datastore \"{}\" has the {kind}{plural} {}",
        record.name,
        catalogue::listed(&names)
    );
    let hint = match kind {
        "disk" => "move or delete them first",
        _ => "delete them first",
    };
    Err(Problem::new(ErrorCode::InUse, detail).with_hint(hint))
}
