//! The host's side of the tablet: what a display hands on from its viewers.

use std::sync::{Arc, Mutex};

use super::report::{Report, Reports};
use super::{EVENTS, Source};
use crate::virtio::served::Slot;

/// A way to a tablet for its monitor. Copies reach the same device; it may be used on any thread.
#[derive(Clone)]
pub struct TabletHandle {
    slot: Slot<Source>,
    reports: Arc<Mutex<Reports>>,
}

impl TabletHandle {
    pub(super) fn new(slot: &Slot<Source>, reports: &Arc<Mutex<Reports>>) -> Self {
        Self {
            slot: Arc::clone(slot),
            reports: Arc::clone(reports),
        }
    }

    /// The pointer moves, the wheel turns, buttons change. Tells whether there is a driver to hear of it; while the
    /// device is paused, it hears of it later. What is out of range is taken for the nearest that is not.
    pub fn report(&self, report: Report) -> bool {
        // First the slot, as the loop does when it serves the device.
        let mut slot = self.slot.lock().unwrap();
        let mut reports = self.reports.lock().unwrap();
        if !reports.driven {
            return false;
        }
        reports.add(report);
        drop(reports);
        if let Some(service) = slot.as_mut() {
            service.serve(EVENTS);
        }
        true
    }
}
