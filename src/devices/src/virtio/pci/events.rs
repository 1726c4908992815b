//! What devices' threads use to reach the driver, without the transport's lock.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use nix::sys::eventfd::EventFd;

use super::NO_VECTOR;
use super::status::{DRIVER_OK, NEEDS_RESET};
use crate::pci::Msix;
use crate::virtio::{Complain, DeviceEvents, QueueInterrupt};

/// Interrupt status bits (virtio 1.2, 4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The part of the transport that any thread may touch.
pub(super) struct Events {
    name: String,
    complain: Complain,
    pub(super) msix: Msix,
    /// The device status field.
    pub(super) status: AtomicU8,
    /// Interrupt status, cleared by reading it.
    pub(super) isr: AtomicU8,
    pub(super) config_vector: AtomicU16,
    pub(super) config_generation: AtomicU8,
}

impl Events {
    pub(super) fn new(name: String, msix: Msix, complain: Complain) -> Self {
        Self {
            name,
            complain,
            msix,
            status: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            config_generation: AtomicU8::new(0),
        }
    }

    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.isr.store(0, Ordering::SeqCst);
        self.config_vector.store(NO_VECTOR, Ordering::SeqCst);
    }

    fn interrupt_config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::SeqCst);
        self.msix.trigger(self.config_vector.load(Ordering::SeqCst));
    }
}

impl DeviceEvents for Events {
    fn config_changed(&self) {
        self.config_generation.fetch_add(1, Ordering::SeqCst);
        if self.status.load(Ordering::SeqCst) & DRIVER_OK != 0 {
            self.interrupt_config();
        }
    }

    fn needs_reset(&self, why: &str) {
        let before = self.status.fetch_or(NEEDS_RESET, Ordering::SeqCst);
        if before & NEEDS_RESET != 0 {
            return;
        }
        (self.complain)(&self.name, &format!("needs a reset by its driver: {why}"));
        if before & DRIVER_OK != 0 {
            self.interrupt_config();
        }
    }

    fn host_failed(&self, what: &str) {
        (self.complain)(&self.name, what);
    }
}

/// The interrupt of one queue. Its vector is fixed while the device is active.
pub(super) struct QueueVector {
    pub(super) events: Arc<Events>,
    pub(super) vector: u16,
    /// Stands in for the interrupt's descriptor where there is none.
    pub(super) nowhere: Arc<EventFd>,
}

impl QueueInterrupt for QueueVector {
    fn notify(&self) {
        self.events.isr.fetch_or(ISR_QUEUE, Ordering::SeqCst);
        self.events.msix.trigger(self.vector);
    }

    fn irqfd(&self) -> BorrowedFd<'_> {
        let real = self.events.msix.irqfd(self.vector);
        real.unwrap_or_else(|| self.nowhere.as_fd())
    }
}
