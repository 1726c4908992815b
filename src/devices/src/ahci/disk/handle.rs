//! What can be done with a disk from outside while its guest runs.

use std::sync::Arc;

use lodge_block::raw::RawError;

use super::Shared;
use crate::on_error::ErrorPolicy;
use crate::throttle::Throttle;
use crate::virtio::blk::Statistics;

/// A way to a disk for its monitor. Copies reach the same disk.
#[derive(Clone)]
pub struct DiskHandle {
    shared: Arc<Shared>,
}

impl DiskHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Counters, updated while the disk runs.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.shared.statistics)
    }

    /// What holds the disk to its limits.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.shared.throttle
    }

    /// What is done with commands that fail.
    pub fn errors(&self) -> &Arc<ErrorPolicy> {
        &self.shared.errors
    }

    /// Looks at the image's size again, after it was grown, and returns it in bytes. ATA has no
    /// way to tell the driver, which sees it when it identifies the disk again.
    ///
    /// # Errors
    /// When the host does not tell; the old size stays.
    pub fn refresh_size(&self) -> Result<u64, RawError> {
        self.shared.image.refresh_size()
    }
}
