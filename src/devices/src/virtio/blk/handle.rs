//! What can be done with a block device from outside while its guest runs.

use std::sync::{Arc, Mutex};

use lodge_block::raw::{RawDisk, RawError};

use super::Statistics;
use crate::virtio::DeviceEvents;

/// A way to a block device for its monitor. Copies reach the same device.
#[derive(Clone)]
pub struct Handle {
    disk: Arc<RawDisk>,
    /// The driver, while there is one.
    events: Arc<Mutex<Option<Arc<dyn DeviceEvents>>>>,
    statistics: Arc<Statistics>,
}

impl Handle {
    pub(super) fn new(disk: Arc<RawDisk>) -> Self {
        Self {
            disk,
            events: Arc::default(),
            statistics: Arc::default(),
        }
    }

    pub(super) fn attach(&self, events: Option<Arc<dyn DeviceEvents>>) {
        *self.events.lock().unwrap() = events;
    }

    /// Counters, updated while the device runs.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Looks at the disk's size again, after it was grown, and tells the driver
    /// if it changed. Returns the size in bytes.
    ///
    /// # Errors
    /// When the host does not tell; the old size stays.
    pub fn refresh_size(&self) -> Result<u64, RawError> {
        let before = self.disk.size();
        let size = self.disk.refresh_size()?;
        if size != before
            && let Some(events) = &*self.events.lock().unwrap()
        {
            events.config_changed();
        }
        Ok(size)
    }
}
