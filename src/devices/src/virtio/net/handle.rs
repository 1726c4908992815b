//! What can be done with a network device from outside while its guest runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::virtio::DeviceEvents;
use crate::virtio::config_change::ConfigChange;

/// A way to a network device for its monitor. Copies reach the same device.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    up: AtomicBool,
    change: ConfigChange,
}

impl Handle {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                up: AtomicBool::new(true),
                change: ConfigChange::default(),
            }),
        }
    }

    pub(super) fn attach(&self, events: Option<Arc<dyn DeviceEvents>>) {
        self.shared.change.attach(events);
    }

    /// Shows the guest a link that is up, or down. Packets are for whoever holds the other end of the tap to stop.
    pub fn set_link(&self, up: bool) {
        if self.shared.up.swap(up, Ordering::SeqCst) != up {
            self.shared.change.tell();
        }
    }

    /// Whether the link is up.
    pub(super) fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// The driver was last told that the link is up, or down.
    pub(super) fn known_to_be(&self, up: bool) {
        if self.is_up() != up {
            self.shared.change.tell();
        }
    }
}
