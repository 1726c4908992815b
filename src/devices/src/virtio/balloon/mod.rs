//! Virtio memory balloon (virtio 1.2, 5.5): memory that a guest lends back to its host, and what
//! the guest says about the rest.
//!
//! The driver names pages it will not use: those in the balloon, whose size the host wishes for,
//! and, with free page reporting, any that happen to be free. The host's memory behind them is
//! discarded at once and comes back, as zeroes, when the guest touches a page again. Nothing has
//! to be remembered about a page for that, so the device keeps no list of what is inflated: a guest
//! that lies about its pages harms its own memory only.
//!
//! All queues are served by one thread of their own rather than by the shared event loop.
//! Discarding takes as long as the host's kernel needs to free the pages, hundreds of milliseconds
//! for a few GiB, during which consoles and clock of the guest would stand still. The thread looks
//! between pieces whether it has to stop, so that a vCPU which resets the device waits for one
//! piece at most.

mod config;
mod deflate;
mod handle;
mod inflate;
mod ranges;
mod reporting;
mod session;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::Queue;

pub use self::handle::{Condition, Handle};
use self::session::{Server, Start};
pub use self::statistics::Statistics;
use super::queue_thread::QueueThread;
use super::{ActivateError, Activation, Prologue, VirtioDevice};
use crate::GuestMemory;
use crate::state::{DeviceState, RestoreError};

/// Size of the pages that are counted (virtio 1.2, 5.5.6), whatever the guest's own are.
pub const PAGE: u64 = 4096;

/// The driver offers a buffer of statistics, returned to it when new ones are wanted.
const STATS_VQ: u64 = 1 << 1;
/// The driver may take pages out of the balloon rather than end programs for want of memory.
const DEFLATE_ON_OOM: u64 = 1 << 2;
/// The driver reports free pages.
///
/// `PAGE_POISON` is not offered with it: pages come back with a content that the driver must not
/// rely on. One that needs to find what it left in free pages does not accept this feature then, as
/// Linux does not.
const PAGE_REPORTING: u64 = 1 << 5;

/// Inflate, deflate, statistics, free page hints, reporting (virtio 1.2, 5.5.2).
///
/// Hints are not offered. The specification lets the queue after the missing one keep its number, 4;
/// Linux counts only queues that exist and reports on number 3. Both are served.
const QUEUES: usize = 5;
const QUEUE_SIZES: [u16; QUEUES] = [64; QUEUES];

/// Gives the host's memory behind whole pages of a guest back to the host. The range lies in guest
/// memory. What the guest reads there afterwards is what the memory held at the very first.
///
/// # Errors
/// When the host refuses; the pages then keep their content.
pub type Discard = Arc<dyn Fn(&GuestMemory, Range<u64>) -> io::Result<()> + Send + Sync>;

/// The balloon device.
pub struct Balloon {
    handle: Handle,
    thread: QueueThread<Server>,
}

impl Balloon {
    /// An empty balloon that is to stay so. Its thread starts at once and runs `prologue` first.
    ///
    /// # Errors
    /// When the host is out of threads or descriptors.
    pub fn new(prologue: Prologue, discard: Discard) -> io::Result<Self> {
        let handle = Handle::new()?;
        let server = Server {
            handle: handle.clone(),
            discard,
        };
        Ok(Self {
            handle,
            thread: QueueThread::spawn("balloon", prologue, server)?,
        })
    }

    /// What the monitor keeps when the device itself is behind its transport.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_BALLOON as u16
    }

    fn pci_class(&self) -> u32 {
        // Unassigned class, as for the entropy device.
        0x00_ff_00
    }

    fn features(&self) -> u64 {
        STATS_VQ | DEFLATE_ON_OOM | PAGE_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config::read(&self.handle, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        config::write(&self.handle, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if activation.queues.len() != QUEUES {
            return Err(ActivateError::Setup("another number of queues"));
        }
        self.deactivate();
        self.handle.attach(Arc::clone(&activation.events));
        self.thread.start(Start {
            memory: activation.memory,
            features: activation.features,
            queues: activation.queues,
            events: activation.events,
        });
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.handle.detach();
        self.thread.stop().unwrap_or_default()
    }

    fn reset(&mut self) {
        self.handle.forget_driver();
    }

    fn save(&self) -> DeviceState {
        state::save(&self.handle)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        state::restore(&self.handle, state)
    }
}
