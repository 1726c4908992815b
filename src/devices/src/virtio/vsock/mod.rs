//! Virtio socket device (virtio 1.2, 5.10): connections between a guest and its host.
//!
//! The host's vhost-vsock moves what the connections carry. The event queue is served here: a guest
//! that was restored hears on it that its connections are no more.

mod event;
mod kernel;
#[cfg(any(test, feature = "fuzzing"))]
mod parked;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_queue::{Queue, QueueT as _};

use self::event::Announcer;
use super::served::{self, Slot};
use super::{ActivateError, Activation, ActiveQueue, VirtioDevice};
use crate::GuestMemory;
use crate::event_loop::{LoopHandle, Registration};
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-vsock";
const VERSION: u32 = 1;

/// Towards the guest, from it, and events.
const QUEUES: usize = 3;
const QUEUE_SIZES: [u16; QUEUES] = [128, 128, 64];

/// Connections that carry a stream of bytes (`VIRTIO_VSOCK_F_STREAM`). vhost has them without saying so.
const STREAM: u64 = 1 << 0;
/// Connections that carry messages (`VIRTIO_VSOCK_F_SEQPACKET`), where the host's kernel has them.
const SEQPACKET: u64 = 1 << 1;

/// Communication controller, other.
const PCI_CLASS: u32 = 0x07_80_00;

/// Lowest address a guest may have (virtio 1.2, 5.10.4). The highest is the one before the last.
const FIRST_CID: u32 = 3;

/// Who moves what connections carry. It has two queues: towards the guest, and from it.
trait Carrier: Send {
    /// Virtio features it has.
    fn features(&self) -> u64;

    /// Starts serving the queues of a driver that accepted `features`.
    fn start(
        &mut self,
        memory: &GuestMemory,
        features: u64,
        queues: Vec<ActiveQueue>,
    ) -> io::Result<()>;

    /// Gives the queues back, and leaves guest memory alone from then on.
    fn stop(&mut self) -> Vec<Queue>;
}

/// A virtio socket device.
pub struct Vsock {
    cid: u32,
    carrier: Box<dyn Carrier>,
    events: LoopHandle,
    slot: Slot<Announcer>,
    /// The event queue is served by the loop.
    registration: Option<Registration>,
    /// The other two while they are not the carrier's: the driver left one disabled.
    idle: Option<Vec<Queue>>,
    /// The driver has to hear that its connections are no more.
    reset_due: Arc<AtomicBool>,
}

impl Vsock {
    /// The device of a guest with the address `cid`, served by `vhost` (`/dev/vhost-vsock`) and, for its
    /// event queue, by `events`.
    ///
    /// # Errors
    /// When `vhost` is no such device, the address is not a guest's or another guest of the host has it.
    pub fn new(vhost: OwnedFd, cid: u32, events: &LoopHandle) -> io::Result<Self> {
        if !(FIRST_CID..u32::MAX).contains(&cid) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{cid} is no address of a guest"),
            ));
        }
        Ok(Self::with(Box::new(kernel::open(vhost, cid)?), cid, events))
    }

    fn with(carrier: Box<dyn Carrier>, cid: u32, events: &LoopHandle) -> Self {
        Self {
            cid,
            carrier,
            events: events.clone(),
            slot: Arc::default(),
            registration: None,
            idle: None,
            reset_due: Arc::default(),
        }
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_VSOCK as u16
    }

    fn pci_class(&self) -> u32 {
        PCI_CLASS
    }

    fn features(&self) -> u64 {
        STREAM | self.carrier.features() & SEQPACKET
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    /// `struct virtio_vsock_config`: the address alone.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = u64::from(self.cid).to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(rest) = space.get(start..) {
            let count = rest.len().min(data.len());
            data[..count].copy_from_slice(&rest[..count]);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.deactivate();
        let [receive, transmit, event]: [ActiveQueue; QUEUES] = activation
            .queues
            .try_into()
            .map_err(|_| ActivateError::Setup("another number of queues"))?;
        if receive.queue.ready() && transmit.queue.ready() {
            let queues = vec![receive, transmit];
            self.carrier
                .start(&activation.memory, activation.features, queues)
                .map_err(|source| ActivateError::Host {
                    what: "starting vhost-vsock",
                    source,
                })?;
        } else {
            // A driver in the middle of a reset; no connection works with half a pair.
            self.idle = Some(vec![receive.queue, transmit.queue]);
        }
        let announcer = Announcer {
            due: Arc::clone(&self.reset_due),
        };
        let activation = Activation {
            memory: activation.memory,
            features: activation.features,
            queues: vec![event],
            events: activation.events,
        };
        match served::start(&self.events, &self.slot, activation, announcer) {
            Ok(started) => self.registration = Some(started),
            Err(error) => {
                self.idle = None;
                self.carrier.stop();
                return Err(error);
            }
        }
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        if self.registration.take().is_none() {
            return Vec::new();
        }
        let mut queues = match self.idle.take() {
            Some(idle) => idle,
            None => self.carrier.stop(),
        };
        queues.extend(served::stop(&self.slot));
        queues
    }

    fn reset(&mut self) {
        // The next driver has no connections yet.
        self.reset_due.store(false, Ordering::Release);
    }

    /// Nothing is kept: connections end here, and the address is the restored guest's own.
    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, VERSION, &())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let () = state.decode(KIND, VERSION)?;
        self.reset_due.store(true, Ordering::Release);
        Ok(())
    }
}
