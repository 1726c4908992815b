//! What the transport asks of a virtio device, and what the device gets from it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use crate::GuestMemory;
use crate::state::{DeviceState, RestoreError};

/// A virtio device behind whatever transport carries it.
///
/// The transport calls it under one lock, from vCPU and run-control threads.
/// Order of calls: any number of configuration accesses; `activate` when the
/// driver sets `DRIVER_OK`; `deactivate` on reset, pause or the end; and so on.
/// The transport freezes queue configuration between `activate` and `deactivate`.
pub trait VirtioDevice: Send {
    /// Virtio device ID (virtio 1.2, section 5), e.g. 2 for a block device.
    fn device_type(&self) -> u16;

    /// PCI class code as `0xCCSSPP` (class, subclass, programming interface).
    fn pci_class(&self) -> u32;

    /// Device-specific feature bits offered. The transport adds `VERSION_1`,
    /// `RING_INDIRECT_DESC` and `RING_EVENT_IDX`.
    fn features(&self) -> u64;

    /// Maximum size of each queue, powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads device configuration space. `data` holds zeroes at entry; what
    /// lies beyond the structure stays so.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes device configuration space. Most devices have nothing writable.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready: start serving.
    ///
    /// # Errors
    /// The transport then sets `DEVICE_NEEDS_RESET`.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stops serving: finishes or abandons in-flight requests so that guest
    /// memory is not touched after return, and gives the queues back (in order)
    /// with their final indices. Nothing to do when not active.
    fn deactivate(&mut self) -> Vec<Queue>;

    /// The chains of each queue that the device took and has not returned, asked for after `deactivate`: whoever activates
    /// it next gives them back with the queue. Most devices return all they took.
    fn take_unfinished(&mut self) -> Vec<Vec<u16>> {
        Vec::new()
    }

    /// The driver is gone: forgets what it has said. Called while not active, before anything
    /// that a next driver does. Most devices know nothing of their drivers.
    fn reset(&mut self) {}

    /// See [`Device::came_later`](crate::lifecycle::Device::came_later).
    fn came_later(&self) -> bool {
        false
    }

    /// Device-specific state, called while not active.
    fn save(&self) -> DeviceState;

    /// Takes back what [`VirtioDevice::save`] gave.
    ///
    /// # Errors
    /// The device is unchanged.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError>;
}

/// Everything a device needs to serve its driver.
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Feature bits the driver accepted.
    pub features: u64,
    /// All queues in order. A driver may leave some disabled (`Queue::ready` is false):
    /// they are present and must not be used.
    pub queues: Vec<ActiveQueue>,
    /// Ways to reach the driver that are not a queue's.
    pub events: Arc<dyn DeviceEvents>,
}

/// One queue, its doorbell and its interrupt.
pub struct ActiveQueue {
    /// Ring addresses and indices, validated against guest memory by the transport.
    pub queue: Queue,
    /// Heads of chains that the device took before and did not return, see [`VirtioDevice::take_unfinished`].
    pub unfinished: Vec<u16>,
    /// Signalled by the kernel when the driver kicks this queue (non-blocking).
    pub kick: EventFd,
    /// Interrupts the driver about this queue.
    pub interrupt: Arc<dyn QueueInterrupt>,
}

/// Interrupts a driver about used buffers of one queue.
pub trait QueueInterrupt: Send + Sync {
    /// Tells the driver that the queue has used buffers.
    fn notify(&self);

    /// The same as a descriptor for kernel back ends (vhost `SET_VRING_CALL`).
    fn irqfd(&self) -> BorrowedFd<'_>;
}

/// Device-wide events towards the driver.
pub trait DeviceEvents: Send + Sync {
    /// Device configuration space changed.
    fn config_changed(&self);

    /// The device cannot go on until it is reset (sets `DEVICE_NEEDS_RESET`).
    fn needs_reset(&self, why: &str);

    /// The host failed the device, which goes on. May be called as often as that happens.
    fn host_failed(&self, what: &str);
}

/// Hears from devices what people who run the host should know: the device's name and
/// what is wrong. It is called on any thread and as often as a guest wants.
pub type Complain = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// A device that cannot start serving.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver set it up in a way it cannot serve.
    #[error("unusable set-up: {0}")]
    Setup(&'static str),
    /// The host refused something.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}
