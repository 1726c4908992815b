//! How datastores are, for as long as the manager lives.

use std::sync::Arc;

use lodge_api::system::StorageHealth;

use super::DatastoreRecord;
use super::record::Backing;
use crate::core::Core;
use crate::storage::PAUSE;

impl Core {
    /// Looks at them every so often, each by itself: a disk that does not answer holds up no other.
    pub(crate) async fn follow_datastores(self: &Arc<Self>) {
        let mut clock = tokio::time::interval(PAUSE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            for record in self.datastores_beside() {
                let core = self.clone();
                self.tasks.spawn(async move {
                    core.look_at(&record).await;
                });
            }
        }
    }

    /// What people should know about all of them.
    pub(crate) fn datastore_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for record in self.datastores_beside() {
            warnings.extend(self.datastore_warning(&record));
            warnings.extend(self.datastores.cell(record.id).seen().notes);
        }
        warnings
    }

    /// What is wrong with one and what to do about it, if anything is.
    pub(super) fn datastore_warning(&self, record: &DatastoreRecord) -> Option<String> {
        let (name, seen) = (&record.name, self.datastores.cell(record.id).seen());
        match seen.health {
            StorageHealth::Sound => None,
            StorageHealth::Low => {
                let free = lodge_api::Size(seen.space.map_or(0, |space| space.available));
                Some(format!(
                    "The datastore \"{name}\" is nearly full: {free} are free. Delete disks or snapshots that are not needed."
                ))
            }
            StorageHealth::ReadOnly => Some(format!(
                "The datastore \"{name}\" is read-only, and nothing on it can be changed: its filesystem was mounted so, or found errors. See the log."
            )),
            StorageHealth::Failed if matches!(record.backing, Backing::Nfs { .. }) => {
                Some(format!(
                    "The datastore \"{name}\" does not answer: its server is gone, or the network between. Guests with disks on it are paused when they use them."
                ))
            }
            StorageHealth::Failed => Some(format!(
                "The datastore \"{name}\" does not answer: its disk is gone or broken. See the log for what the kernel says of it, and check the disk's cables."
            )),
            StorageHealth::Missing => Some(format!(
                "The datastore \"{name}\" is missing: {}.",
                seen.problem
            )),
        }
    }
}
