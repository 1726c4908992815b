//! A block of registers whose place on a bus the guest decides.

use std::sync::{Arc, Mutex, Weak};

use crate::bus::{Bus, BusDevice};

/// Puts a device on a bus, and moves it when its place changes.
pub(super) struct Placed<D> {
    /// Not kept alive: it may be what keeps this alive.
    bus: Weak<Bus>,
    device: Arc<Mutex<D>>,
    /// First address and length.
    place: Option<(u64, u64)>,
}

impl<D: BusDevice + 'static> Placed<D> {
    /// Nowhere yet. Somebody else keeps the bus.
    pub(super) fn new(bus: &Arc<Bus>, device: Arc<Mutex<D>>) -> Self {
        Self {
            bus: Arc::downgrade(bus),
            device,
            place: None,
        }
    }

    /// Moves the device. Where another one answers already, it answers nowhere.
    pub(super) fn move_to(&mut self, wanted: Option<(u64, u64)>) {
        if wanted == self.place {
            return;
        }
        let Some(bus) = self.bus.upgrade() else {
            return;
        };
        if let Some((base, _)) = self.place.take() {
            bus.remove(base);
        }
        if let Some((base, length)) = wanted {
            match bus.insert(base, length, Arc::clone(&self.device) as _) {
                Ok(()) => self.place = wanted,
                Err(error) => tracing::debug!(%error, base, "registers stay unmapped"),
            }
        }
    }
}
