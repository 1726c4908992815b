//! Virtio input device (virtio 1.2, 5.8): a tablet, whose pointer is where its user's is.
//!
//! A mouse tells how far it moved, and a guest that accelerates makes something else of it; a tablet tells where it is, on
//! a scale of its own. Linux has had a driver since 4.1, other systems have one in their virtio packages.
//!
//! What happens is kept as reports, a few at most, and told event by event into the buffers that the driver offers. Motion
//! that a guest is too slow for joins into the last; buttons are told each time, and in the end as they are.

mod config;
mod handle;
mod report;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_ids::VIRTIO_ID_INPUT;
use virtio_queue::Queue;

use self::config::Selection;
pub use self::handle::TabletHandle;
use self::report::Reports;
pub use self::report::{FARTHEST, Report};
use super::chain::{Chain, ChainError, Limits};
use super::served::{self, Handler, Slot};
use super::{ActivateError, Activation, VirtioDevice};
use crate::GuestMemory;
use crate::event_loop::{LoopHandle, Registration};
use crate::state::{DeviceState, RestoreError};

/// Events, then status (virtio 1.2, 5.8.2).
const QUEUE_SIZES: [u16; 2] = [64, 64];
const EVENTS: usize = 0;

/// The tablet.
pub struct Tablet {
    events: LoopHandle,
    slot: Slot<Source>,
    registration: Option<Registration>,
    reports: Arc<Mutex<Reports>>,
    selection: Selection,
}

/// What serves the queues while there is a driver.
struct Source {
    reports: Arc<Mutex<Reports>>,
}

impl Tablet {
    /// A tablet that nobody touches, served by `events`.
    pub fn new(events: &LoopHandle) -> Self {
        Self {
            events: events.clone(),
            slot: Arc::default(),
            registration: None,
            reports: Arc::default(),
            selection: Selection::default(),
        }
    }

    /// What touches it when the device itself is behind its transport.
    pub fn handle(&self) -> TabletHandle {
        TabletHandle::new(&self.slot, &self.reports)
    }
}

impl Handler for Source {
    const LIMITS: Limits = Limits {
        segments: QUEUE_SIZES[EVENTS] as usize,
        bytes: u32::MAX as u64,
    };

    /// Buffers for events wait for something to happen.
    fn ready(&mut self, number: usize) -> bool {
        number != EVENTS || self.reports.lock().unwrap().waiting()
    }

    fn handle(
        &mut self,
        number: usize,
        memory: &GuestMemory,
        chain: &Chain,
    ) -> Result<u32, ChainError> {
        // Status is for lights and sounds, which a tablet has none of.
        if number != EVENTS {
            return Ok(0);
        }
        let Some(event) = self.reports.lock().unwrap().next() else {
            return Ok(0);
        };
        let bytes = event.to_bytes();
        chain.writable.write_at(memory, 0, &bytes)?;
        Ok(bytes.len() as u32)
    }
}

impl VirtioDevice for Tablet {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_INPUT as u16
    }

    fn pci_class(&self) -> u32 {
        // Input device, other.
        0x09_80_00
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.selection.read(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.selection.write(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let source = Source {
            reports: Arc::clone(&self.reports),
        };
        let started = served::start(&self.events, &self.slot, activation, source)?;
        self.registration = Some(started);
        self.reports.lock().unwrap().driven = true;
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.registration = None;
        served::stop(&self.slot)
    }

    fn reset(&mut self) {
        *self.reports.lock().unwrap() = Reports::default();
        self.selection = Selection::default();
    }

    fn save(&self) -> DeviceState {
        state::save(self.selection, &self.reports.lock().unwrap())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let (selection, reports) = state::restore(state)?;
        self.selection = selection;
        *self.reports.lock().unwrap() = reports;
        Ok(())
    }

    fn came_later(&self) -> bool {
        true
    }
}
