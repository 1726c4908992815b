//! Doorbells: guest writes that become a queue's event without leaving the kernel.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{NOTIFY, NOTIFY_STRIDE};
use crate::interrupt::Platform;

/// The doorbells of one function.
pub(super) struct Doorbells {
    platform: Arc<dyn Platform>,
    /// Where they were asked for.
    base: Option<u64>,
    /// Queue and address of those the platform took.
    taken: Vec<(usize, u64)>,
}

impl Doorbells {
    pub(super) fn new(platform: Arc<dyn Platform>) -> Self {
        Self {
            platform,
            base: None,
            taken: Vec::new(),
        }
    }

    /// Has the doorbells of all `kicks` at the BAR's address `base`, or nowhere. A doorbell the
    /// platform refuses is served by the function itself, only slower.
    pub(super) fn place(&mut self, base: Option<u64>, kicks: &[EventFd]) {
        if self.base == base {
            return;
        }
        self.base = base;
        for (queue, address) in self.taken.drain(..) {
            if let Err(error) = self.platform.remove_doorbell(address, &kicks[queue]) {
                tracing::warn!(%error, queue, "doorbell cannot be removed");
            }
        }
        let Some(base) = base else {
            return;
        };
        for (queue, kick) in kicks.iter().enumerate() {
            // The BAR is on the bus, so its end does not wrap.
            let address = base + NOTIFY + queue as u64 * NOTIFY_STRIDE;
            match self.platform.add_doorbell(address, kick) {
                Ok(()) => self.taken.push((queue, address)),
                Err(error) => tracing::debug!(%error, queue, "doorbell refused"),
            }
        }
    }
}
