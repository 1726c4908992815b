//! Exports and connections when the manager starts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lodge_host::nvmf;

use super::connect::end;
use super::follow::Try;
use crate::core::{Core, blocking, internal};

/// How long the start waits for targets, and for the host's own address to reach them from.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);

impl Core {
    /// Exports what is exported, and connects what is connected, so that datastores find their disks. What is not there is looked for from
    /// now on.
    pub(crate) async fn attach_nvme(self: &Arc<Self>) {
        self.look_at_exports().await;
        if self.config.appliance {
            self.end_unrecorded().await;
        }
        let looks = self.connections().into_iter().map(|record| {
            let core = self.clone();
            let until = tokio::time::Instant::now() + PATIENCE;
            // One that hangs goes on by itself.
            self.tasks.spawn(async move {
                while !core.look_at_connection(&record, Try::Now).await
                    && tokio::time::Instant::now() + PAUSE < until
                {
                    tokio::time::sleep(PAUSE).await;
                }
                core.tell_of(&record);
            })
        });
        if tokio::time::timeout(PATIENCE, join_all(looks))
            .await
            .is_err()
        {
            tracing::warn!("some NVMe connections are not there yet; going on without them");
        }
    }

    /// Ends what an earlier manager began and did not record.
    async fn end_unrecorded(&self) {
        let found = blocking(|| {
            nvmf::controllers().map_err(|error| internal(format!("NVMe controllers: {error}")))
        });
        let known = self.connections();
        let known: Vec<_> = known.iter().filter_map(|r| self.wanted(r).ok()).collect();
        let host = self.nvme.host.nqn();
        for controller in found.await.unwrap_or_default() {
            let is_ours = controller.host == host.as_str();
            if is_ours && !known.iter().any(|wanted| wanted.is(&controller)) {
                end(controller.name).await;
            }
        }
    }
}
