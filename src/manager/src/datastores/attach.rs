//! Opening datastores: at the start, and when their disks appear.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lodge_api::system::StorageHealth;
use uuid::Uuid;

use super::home::{Home, mount_point};
use super::record::Backing;
use super::registry::Cell;
use super::{DatastoreRecord, Folders};
use crate::catalogue;
use crate::core::{Core, blocking};
use crate::storage::health;

/// How long the start waits for disks that do not answer. Replaying the log of a large filesystem takes a part of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A look that takes longer than this is at something that does not work.
const ANSWER: Duration = Duration::from_secs(60);

impl Core {
    /// Opens all datastores. Those that cannot be are missing, and looked for from now on.
    pub(crate) async fn attach_datastores(self: &Arc<Self>) {
        let looks = self.datastores_beside().into_iter().map(|record| {
            let core = self.clone();
            // One that hangs goes on by itself.
            self.tasks.spawn(async move { core.look_at(&record).await })
        });
        if tokio::time::timeout(PATIENCE, join_all(looks))
            .await
            .is_err()
        {
            tracing::warn!("some datastores are not there yet; going on without them");
        }
    }

    /// All but the host's own data storage.
    pub(super) fn datastores_beside(&self) -> Vec<DatastoreRecord> {
        let all = catalogue::list::<DatastoreRecord>(&self.snapshot());
        let all = all.into_iter().map(|record| record.value);
        all.filter(|record| record.key().is_some()).collect()
    }

    /// Looks how a datastore is, and opens it when it can be.
    pub(super) async fn look_at(self: &Arc<Self>, record: &DatastoreRecord) {
        if self.is_deleted(record) {
            return;
        }
        let cell = self.datastores.cell(record.id);
        if let Ok(_changing) = cell.changing.try_lock() {
            // Who deletes it closes it when this is over.
            if self.is_deleted(record) {
                return;
            }
            cell.update(|seen| seen.looking_since = Some(Instant::now()));
            if !self.is_well(&cell).await {
                // Nobody begins to use it now; those who do already keep it mounted.
                cell.update(|seen| seen.home = None);
                self.attach(record, &cell).await;
            }
            cell.update(|seen| seen.looking_since = None);
        } else {
            let since = cell.seen().looking_since.map(|since| since.elapsed());
            if since.is_some_and(|since| since > ANSWER) {
                cell.update(|seen| seen.health = StorageHealth::Failed);
            }
        }
        let seen = cell.seen();
        if seen.health == seen.told {
            return;
        }
        cell.update(|seen| seen.told = seen.health);
        match self.datastore_warning(record) {
            Some(problem) => self.tell_problem(problem),
            None => self.tell(format!("The datastore \"{}\" is sound.", record.name)),
        }
        self.console_changed();
    }

    fn is_deleted(&self, record: &DatastoreRecord) -> bool {
        let found =
            catalogue::find_optional::<DatastoreRecord>(&self.snapshot(), &record.id.to_string());
        matches!(found, Ok(None))
    }

    /// Looks at one that is open, if it is.
    async fn is_well(&self, cell: &Cell) -> bool {
        let seen = cell.seen();
        let Some(home) = seen.home else { return false };
        let looked = blocking(move || Ok((home.folders.disks.space().ok(), home.works())));
        let Ok((space, works)) = looked.await else {
            return false;
        };
        let now = health(seen.health, space, works);
        cell.update(|seen| {
            seen.health = now;
            seen.space = space;
        });
        now != StorageHealth::Failed
    }

    async fn attach(self: &Arc<Self>, record: &DatastoreRecord, cell: &Cell) {
        let (id, backing) = (record.id, record.backing.clone());
        let at = mount_point(&self.config.run_dir, id);
        let opened = blocking(move || {
            Ok(match backing {
                Backing::System => Err("it is not mounted".to_owned()),
                Backing::Disk { .. } => Home::of_disk(id, &at, false),
                Backing::Directory { path } => Home::of_directory(&path, false),
            })
        });
        let problem = match opened.await {
            Ok(Ok(home)) => match self.settle(record, &home.folders).await {
                Ok(notes) => {
                    self.publish(id, cell, home, notes);
                    return;
                }
                Err(problem) => {
                    if let Err(error) = blocking(move || home.leave()).await {
                        tracing::warn!(%error, %id, "a datastore stays mounted");
                    }
                    problem.to_string()
                }
            },
            Ok(Err(problem)) => problem,
            Err(problem) => problem.to_string(),
        };
        cell.update(|seen| {
            seen.health = StorageHealth::Missing;
            seen.space = None;
            seen.problem = problem;
        });
    }

    /// Lets everybody use it.
    pub(super) fn publish(&self, id: Uuid, cell: &Cell, home: Home, notes: Vec<String>) {
        let space = home.folders.disks.space().ok();
        cell.update(|seen| {
            seen.health = health(StorageHealth::Sound, space, true);
            seen.space = space;
            seen.home = Some(home);
            seen.notes = notes;
            seen.problem.clear();
        });
        tracing::info!(%id, "a datastore is open");
    }

    /// Where a disk is.
    pub(crate) fn folders_of_disk(&self, disk: Uuid) -> Result<Folders, lodge_api::Problem> {
        let record =
            catalogue::find::<crate::disks::DiskRecord>(&self.snapshot(), &disk.to_string())?;
        self.datastores.folders(record.value.datastore)
    }
}
