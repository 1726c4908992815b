//! How a device interrupts its guest, without knowing the hypervisor.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// A wired interrupt: one input of the I/O APIC.
pub trait InterruptLine: Send + Sync {
    /// Drives the line; level-triggered inputs follow it, edge-triggered ones
    /// take the change from low to high.
    fn set_level(&self, high: bool);
}

/// A wired interrupt and the level last driven, so that only changes reach the
/// hypervisor: driving a line costs a system call.
pub struct DrivenLine {
    line: Arc<dyn InterruptLine>,
    high: bool,
}

impl DrivenLine {
    /// A line that is low.
    pub fn new(line: Arc<dyn InterruptLine>) -> Self {
        Self { line, high: false }
    }

    /// Drives the line if that changes it.
    pub fn set(&mut self, high: bool) {
        if self.high != high {
            self.high = high;
            self.line.set_level(high);
        }
    }

    /// Drives the line in any case, e.g. after a restore.
    pub fn force(&mut self, high: bool) {
        self.high = high;
        self.line.set_level(high);
    }
}

/// One message-signalled interrupt: an MSI-X table entry made real.
pub trait MsiVector: Send + Sync {
    /// Sends the message last configured, if it is not masked.
    fn trigger(&self);

    /// The descriptor whose signal sends the message without leaving the
    /// kernel (an irqfd), for vhost and other kernel back ends. It stays valid,
    /// and may be signalled, whether or not the vector is masked.
    fn irqfd(&self) -> BorrowedFd<'_>;

    /// Sets the message and whether it may be sent. While masked, signals on
    /// the irqfd are dropped by the implementation; the caller keeps the pending bit.
    ///
    /// # Errors
    /// When the hypervisor refuses the route.
    fn configure(&self, message: MsiMessage, masked: bool) -> io::Result<()>;
}

/// Address and data of a message-signalled interrupt, as PCI defines them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Guest-physical address written to.
    pub address: u64,
    /// Data written.
    pub data: u32,
}

/// Where devices get their interrupts and doorbells from. Implemented by the monitor.
pub trait Platform: Send + Sync {
    /// A new message-signalled interrupt, masked.
    ///
    /// # Errors
    /// When the hypervisor has no more routes.
    fn msi_vector(&self) -> io::Result<Arc<dyn MsiVector>>;

    /// Makes guest writes of any width to the memory-mapped `address` signal
    /// `event` instead of leaving the kernel (an ioeventfd).
    ///
    /// # Errors
    /// When the hypervisor refuses, e.g. because the address is taken.
    fn add_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;

    /// Undoes [`Platform::add_doorbell`] with the same arguments.
    ///
    /// # Errors
    /// When there was no such doorbell.
    fn remove_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()>;
}
