//! A block of registers whose place on a bus the guest decides.

use std::sync::{Arc, Mutex};

use crate::bus::{Bus, BusDevice};

/// Puts a device on a bus, and moves it when its place changes.
pub(super) struct Placed<D> {
    bus: Arc<Bus>,
    device: Arc<Mutex<D>>,
    /// First address and length.
    place: Option<(u64, u64)>,
}

impl<D: BusDevice + 'static> Placed<D> {
    /// Nowhere yet.
    pub(super) fn new(bus: Arc<Bus>, device: Arc<Mutex<D>>) -> Self {
        Self {
            bus,
            device,
            place: None,
        }
    }

    /// Moves the device. Where another one answers already, it answers nowhere.
    pub(super) fn move_to(&mut self, wanted: Option<(u64, u64)>) {
        if wanted == self.place {
            return;
        }
        if let Some((base, _)) = self.place.take() {
            self.bus.remove(base);
        }
        if let Some((base, length)) = wanted {
            match self.bus.insert(base, length, Arc::clone(&self.device) as _) {
                Ok(()) => self.place = wanted,
                Err(error) => tracing::debug!(%error, base, "registers stay unmapped"),
            }
        }
    }
}
