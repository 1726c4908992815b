//! What can be done with a block device from outside while its guest runs.

use std::sync::Arc;

use lodge_block::raw::{RawDisk, RawError};

use super::Statistics;
use crate::on_error::ErrorPolicy;
use crate::throttle::Throttle;
use crate::virtio::DeviceEvents;
use crate::virtio::config_change::ConfigChange;

/// A way to a block device for its monitor. Copies reach the same device.
#[derive(Clone)]
pub struct Handle {
    disk: Arc<RawDisk>,
    change: Arc<ConfigChange>,
    statistics: Arc<Statistics>,
    throttle: Arc<Throttle>,
    errors: Arc<ErrorPolicy>,
}

impl Handle {
    pub(super) fn new(disk: Arc<RawDisk>) -> Self {
        Self {
            disk,
            change: Arc::default(),
            statistics: Arc::default(),
            throttle: Arc::default(),
            errors: Arc::default(),
        }
    }

    pub(super) fn attach(&self, events: Option<Arc<dyn DeviceEvents>>) {
        self.change.attach(events);
    }

    /// Counters, updated while the device runs.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// What holds the disk to its limits.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// What is done with requests that fail.
    pub fn errors(&self) -> &Arc<ErrorPolicy> {
        &self.errors
    }

    /// Looks at the disk's size again, after it was grown, and tells the driver
    /// if it changed. Returns the size in bytes.
    ///
    /// # Errors
    /// When the host does not tell; the old size stays.
    pub fn refresh_size(&self) -> Result<u64, RawError> {
        let before = self.disk.size();
        let size = self.disk.refresh_size()?;
        if size != before {
            self.change.tell();
        }
        Ok(size)
    }
}
