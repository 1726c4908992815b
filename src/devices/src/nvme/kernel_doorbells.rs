//! Doorbells that reach a queue's thread without leaving the kernel.
//!
//! The kernel tells that a register was written but not what, so that is only done for drivers that
//! leave their indices in memory (`shadow.rs`), and for submission queues, whose doorbells are the ones that matter.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::doorbells::Doorbells;
use super::{DOORBELL_PAIR_BYTES, DOORBELLS};
use crate::interrupt::Platform;

/// The doorbells the kernel has.
pub(super) struct KernelDoorbells {
    platform: Arc<dyn Platform>,
    place: Mutex<Place>,
}

#[derive(Default)]
struct Place {
    /// Where the registers are.
    base: Option<u64>,
    /// The driver leaves its indices in memory.
    wanted: bool,
    /// Queue and address of those the platform took.
    taken: Vec<(u16, u64)>,
}

impl KernelDoorbells {
    pub fn new(platform: Arc<dyn Platform>) -> Self {
        Self {
            platform,
            place: Mutex::default(),
        }
    }

    /// The registers answer at `base` now, or nowhere.
    pub fn move_to(&self, base: Option<u64>, doorbells: &Doorbells) {
        let mut place = self.place.lock().unwrap();
        if place.base != base {
            place.base = base;
            self.put(&mut place, doorbells);
        }
    }

    /// Indices are in memory from now on, or no more.
    pub fn want(&self, wanted: bool, doorbells: &Doorbells) {
        let mut place = self.place.lock().unwrap();
        if place.wanted != wanted {
            place.wanted = wanted;
            self.put(&mut place, doorbells);
        }
    }

    /// A doorbell the platform refuses is served by the function itself, only slower.
    fn put(&self, place: &mut Place, doorbells: &Doorbells) {
        for (queue, address) in place.taken.drain(..) {
            if let Err(error) = self
                .platform
                .remove_doorbell(address, doorbells.kick(queue))
            {
                tracing::warn!(%error, queue, "doorbell cannot be removed");
            }
        }
        let Some(base) = place.base.filter(|_| place.wanted) else {
            return;
        };
        let each: Vec<(u16, &EventFd)> = (1..).zip(doorbells.kicks()).collect();
        for (queue, kick) in each {
            // The BAR is on the bus, so its end does not wrap.
            let address = base + DOORBELLS + u64::from(queue) * DOORBELL_PAIR_BYTES;
            match self.platform.add_doorbell(address, kick) {
                Ok(()) => place.taken.push((queue, address)),
                Err(error) => tracing::debug!(%error, queue, "doorbell refused"),
            }
        }
    }
}
