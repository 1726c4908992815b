//! What is done with files that no record names, when a datastore is opened.

use lodge_api::Problem;
use lodge_block::FileName;
use lodge_block::datastore::{Datastore, DatastoreError};
use lodge_store::{Batch, Snapshot};
use uuid::Uuid;

use super::{DatastoreRecord, Folders};
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking};
use crate::disks::DiskRecord;
use crate::images::{datastore_problem, file_name};
use crate::recovered;
use crate::snapshots;

impl Core {
    /// Brings files and records together. What people should know of it is returned.
    pub(super) async fn settle(
        &self,
        record: &DatastoreRecord,
        folders: &Folders,
    ) -> Result<Vec<String>, Problem> {
        let changing = self.catalogue.lock().await;
        let now = self.snapshot();
        // Somebody may have deleted it meanwhile.
        let known = catalogue::find::<DatastoreRecord>(&now, &record.id.to_string())?;
        let lost = known.value.unsettled || self.store.has_losses();
        let mut notes = if lost {
            self.bring_back(record.id, folders, &now).await?
        } else {
            let moved = self.leave_only_recorded(record.id, folders, &now).await?;
            if !moved.is_empty() {
                self.commit(moved).await?;
            }
            Vec::new()
        };
        let now = self.snapshot();
        let here = recovered::disks_on(&now, Some(record.id));
        let disks = folders.disks.clone();
        notes.extend(blocking(move || Ok(recovered::without_files(here, &disks))).await?);
        self.record_growth(Some(record.id), &folders.disks).await?;
        drop(changing);
        Ok(notes)
    }

    /// Disks and disks of snapshots that were forgotten are disks again. While one of them cannot be, none is removed.
    async fn bring_back(
        &self,
        id: Uuid,
        folders: &Folders,
        now: &Snapshot,
    ) -> Result<Vec<String>, Problem> {
        let (looking, before) = (folders.clone(), now.clone());
        let found = blocking(move || Ok(recovered::on_datastore(id, &looking, &before))).await?;
        let whole = found.is_whole();
        let (batch, notes) = found.outcome();
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        let now = self.snapshot();
        let mut batch = Batch::new();
        catalogue::mend_names::<DiskRecord>(&mut batch, &now)?;
        let old = catalogue::find::<DatastoreRecord>(&now, &id.to_string())?;
        if whole {
            let settled = DatastoreRecord {
                unsettled: false,
                ..old.value.clone()
            };
            catalogue::replace(&mut batch, &old, &settled)?;
        }
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        Ok(notes)
    }

    /// Removes what was never finished, or is deleted, or was moved to another datastore. Disks whose record says that they are elsewhere, and
    /// are not, are recorded to be here.
    async fn leave_only_recorded(
        &self,
        id: Uuid,
        folders: &Folders,
        now: &Snapshot,
    ) -> Result<Batch, Problem> {
        let listing = folders.disks.clone();
        let files = blocking(move || listing.files().map_err(|error| datastore_problem(&error)));
        let mut surplus = Vec::new();
        let mut batch = Batch::new();
        for file in files.await? {
            let Some(disk) = file.as_str().parse::<Uuid>().ok() else {
                continue;
            };
            let record = catalogue::find_optional::<DiskRecord>(now, &disk.to_string())?;
            let Some(record) = record else {
                surplus.push((folders.disks.clone(), file));
                continue;
            };
            if record.value.datastore == Some(id) {
                // It was being moved when the host went down.
                let others = self.datastores.others(id).into_iter();
                surplus.extend(others.map(|other| (other.disks, file.clone())));
                continue;
            }
            let Ok(other) = self.datastores.folders(record.value.datastore) else {
                // It is found out when the other one is there.
                continue;
            };
            if other.disks.info(&file_name(disk)?).is_ok() {
                surplus.push((folders.disks.clone(), file));
            } else {
                let here = record.value.clone().on(Some(id));
                catalogue::replace(&mut batch, &record, &here)?;
            }
        }
        let (saved, now) = (folders.saved.clone(), now.clone());
        blocking(move || {
            for (disks, file) in surplus {
                remove(&disks, &file);
            }
            snapshots::remove_unrecorded(&saved, &now);
            Ok(())
        })
        .await?;
        Ok(batch)
    }
}

fn remove(disks: &Datastore, file: &FileName) {
    match disks.remove_file(file) {
        Ok(()) => tracing::info!(%file, "removed a file that no {} has", DiskRecord::KIND),
        Err(DatastoreError::NotFound { .. }) => {}
        Err(error) => tracing::warn!(%file, %error, "a file that is not needed stays"),
    }
}
