//! Guests whose disks are on datastores that are not there yet: servers are found only when the host's network is up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::DatastoreRecord;
use crate::catalogue;
use crate::core::Core;
use crate::disks::DiskRecord;
use crate::vms::VmRecord;

/// How long the start waits for the datastores of guests that go on where they were.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// Whether all datastores are there on which a guest has disks.
    pub(crate) fn has_datastores_of(&self, vm: &VmRecord) -> bool {
        self.missing_datastores(vm).is_empty()
    }

    /// Waits a while for the datastores on which guests have disks.
    pub(crate) async fn wait_for_datastores_of(self: &Arc<Self>, vms: &[VmRecord]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let missing: Vec<DatastoreRecord> = vms
                .iter()
                .flat_map(|vm| self.missing_datastores(vm))
                .collect();
            if missing.is_empty() || Instant::now() >= deadline {
                return;
            }
            join_all(missing.iter().map(|record| self.look_at(record))).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn missing_datastores(&self, vm: &VmRecord) -> Vec<DatastoreRecord> {
        let snapshot = self.snapshot();
        let disks = vm.spec.disks.iter().filter_map(|entry| {
            catalogue::find::<DiskRecord>(&snapshot, entry.disk.as_str())
                .ok()?
                .value
                .datastore
        });
        let missing = disks.filter(|id| self.datastores.folders(Some(*id)).is_err());
        let records = missing
            .filter_map(|id| catalogue::find::<DatastoreRecord>(&snapshot, &id.to_string()).ok());
        records.map(|record| record.value).collect()
    }
}
