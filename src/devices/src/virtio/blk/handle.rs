//! What can be done with a block device from outside while its guest runs.

use std::sync::{Arc, Mutex};

use lodge_block::raw::{RawDisk, RawError};

use super::Statistics;
use crate::on_error::ErrorPolicy;
use crate::throttle::Throttle;
use crate::virtio::DeviceEvents;

/// A way to a block device for its monitor. Copies reach the same device.
#[derive(Clone)]
pub struct Handle {
    disk: Arc<RawDisk>,
    driver: Arc<Mutex<Driver>>,
    statistics: Arc<Statistics>,
    throttle: Arc<Throttle>,
    errors: Arc<ErrorPolicy>,
}

#[derive(Default)]
struct Driver {
    /// The way to it, while the device serves it.
    events: Option<Arc<dyn DeviceEvents>>,
    /// The size changed since it was last told: while the guest is paused, nobody can be.
    untold: bool,
}

impl Handle {
    pub(super) fn new(disk: Arc<RawDisk>) -> Self {
        Self {
            disk,
            driver: Arc::default(),
            statistics: Arc::default(),
            throttle: Arc::default(),
            errors: Arc::default(),
        }
    }

    pub(super) fn attach(&self, events: Option<Arc<dyn DeviceEvents>>) {
        let mut driver = self.driver.lock().unwrap();
        driver.events = events;
        driver.tell();
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
            let mut driver = self.driver.lock().unwrap();
            driver.untold = true;
            driver.tell();
        }
        Ok(size)
    }
}

impl Driver {
    fn tell(&mut self) {
        if let Some(events) = self.events.as_ref().filter(|_| self.untold) {
            events.config_changed();
            self.untold = false;
        }
    }
}
