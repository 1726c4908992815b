//! Opening datastores: at the start, and when their disks appear.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lodge_api::system::StorageHealth;
use uuid::Uuid;

use super::home::{Home, mount_point};
use super::nfs::Opening;
use super::record::Backing;
use super::registry::{ANSWER, Cell};
use super::{DatastoreRecord, Folders};
use crate::catalogue;
use crate::core::{Core, blocking};
use crate::storage::health;
use crate::{Manager, vms};

/// How long the start waits for disks that do not answer. Replaying the log of a large filesystem takes a part of it.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let back = matches!(seen.health, StorageHealth::Sound | StorageHealth::Low)
            && matches!(seen.told, StorageHealth::Failed | StorageHealth::Missing);
        if back {
            // Servers restart. What was on a disk that failed is for people to look at first.
            if matches!(record.backing, Backing::Nfs { .. }) {
                vms::go_on_with_datastore(self, record.id).await;
            }
            Manager { core: self.clone() }.start_waiting().await;
        }
        match self.datastore_warning(record) {
            Some(problem) => self.tell_problem(problem),
            None => self.tell(format!("The datastore \"{}\" is sound.", record.name)),
        }
        self.console_changed();
    }

    fn is_deleted(&self, record: &DatastoreRecord) -> bool {
        catalogue::is_gone::<DatastoreRecord>(&self.snapshot(), record.id)
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
        let id = record.id;
        let opened = self.home_of(id, &record.backing, Opening::Again).await;
        let problem = match opened {
            Ok(home) => match self.settle(record, &home.folders).await {
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
            Err(problem) => problem,
        };
        cell.update(|seen| {
            seen.health = StorageHealth::Missing;
            seen.space = None;
            seen.problem = problem;
        });
    }

    /// Mounts and opens what a datastore is on. An error is text for people.
    pub(super) async fn home_of(
        &self,
        id: Uuid,
        backing: &Backing,
        opening: Opening,
    ) -> Result<Home, String> {
        let at = mount_point(&self.config.run_dir, id);
        let new = opening == Opening::New;
        let opened = match backing {
            Backing::System => return Err("it is not mounted".to_owned()),
            Backing::Disk { .. } => blocking(move || Ok(Home::of_disk(id, &at, new))).await,
            Backing::Directory { path } => {
                let path = path.clone();
                blocking(move || Ok(Home::of_directory(&path, new))).await
            }
            Backing::Nfs { nfs } => {
                let source = self.nfs_source(id, nfs).await?;
                blocking(move || Ok(source.open(&at, opening))).await
            }
        };
        opened.unwrap_or_else(|problem| Err(problem.to_string()))
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
