//! Virtio network device (virtio 1.2, 5.1): one pair of queues on a tap.
//!
//! Where the host has vhost-net the kernel moves the packets; else a thread here does.

mod config;
mod handle;
mod offload;
mod receive;
mod session;
mod state;
mod statistics;
mod transmit;
mod used;
mod vhost;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_bindings::virtio_net as abi;
use virtio_queue::{Queue, QueueT as _};

pub use self::handle::Handle;
use self::session::{Start, Worker};
pub use self::statistics::{Statistics, Totals};
use self::vhost::Cable;
use super::queue_thread::{Prologue, QueueThread};
use super::vhost::{Switch as _, Vhost};
use super::{ActivateError, Activation, ActiveQueue, VirtioDevice};
use crate::state::{DeviceState, RestoreError};
use crate::tap::Tap;

/// Packets a driver may have under way, in descriptors: towards the guest, and from it.
const QUEUE_SIZES: [u16; 2] = [256, 256];

/// Device ID (virtio 1.2, 5).
const DEVICE_TYPE: u16 = 1;

/// Ethernet controller.
const PCI_CLASS: u32 = 0x02_00_00;

/// How an interface shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The guest's MAC address, individual and not all zeroes.
    pub mac: [u8; 6],
    /// Largest packet payload in bytes, 68 to 65535.
    pub mtu: u16,
}

/// A virtio network device.
pub struct Net {
    tap: Arc<Tap>,
    options: Options,
    backend: Backend,
    active: bool,
    /// Queues while they are not the back end's: the driver left them disabled.
    idle: Option<Vec<Queue>>,
    statistics: Arc<Statistics>,
    handle: Handle,
}

/// Who moves the packets.
enum Backend {
    Kernel(Vhost<Cable>),
    Thread(QueueThread<Worker>),
}

impl Net {
    /// A device on `tap` (opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`),
    /// served by `vhost` (`/dev/vhost-net`) if given, else by a thread that
    /// starts at once and runs `prologue` first.
    ///
    /// # Errors
    /// When `tap` is no such tap, or the host refuses.
    pub fn new(
        tap: OwnedFd,
        vhost: Option<OwnedFd>,
        options: Options,
        prologue: Prologue,
    ) -> io::Result<Self> {
        Self::with(Tap::new(tap)?, vhost, options, prologue)
    }

    /// A device driven by hand on a socket that carries whole packets with their headers.
    ///
    /// # Errors
    /// From the socket.
    #[cfg(feature = "fuzzing")]
    pub fn on_socket(socket: OwnedFd, options: Options) -> io::Result<Self> {
        Self::with(Tap::carrying(socket)?, None, options, Arc::new(|| {}))
    }

    fn with(
        tap: Tap,
        vhost: Option<OwnedFd>,
        options: Options,
        prologue: Prologue,
    ) -> io::Result<Self> {
        let tap = Arc::new(tap);
        let statistics = Arc::<Statistics>::default();
        let backend = match vhost {
            Some(vhost) => Backend::Kernel(Vhost::new(vhost, Cable(Arc::clone(&tap)))?),
            None => {
                let worker = Worker::new(Arc::clone(&tap), Arc::clone(&statistics));
                Backend::Thread(QueueThread::spawn("net-queues", prologue, worker)?)
            }
        };
        Ok(Self {
            tap,
            options,
            backend,
            active: false,
            idle: None,
            statistics,
            handle: Handle::new(),
        })
    }

    /// What the monitor keeps when the device itself is behind its transport.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Counters of the thread; they stay zero where the kernel moves the packets
    /// (the tap's own counters tell the same).
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        PCI_CLASS
    }

    fn features(&self) -> u64 {
        1 << abi::VIRTIO_NET_F_MAC
            | 1 << abi::VIRTIO_NET_F_MTU
            | 1 << abi::VIRTIO_NET_F_STATUS
            | 1 << abi::VIRTIO_NET_F_MRG_RXBUF
            | offload::FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config::read(self.options, self.handle.is_up(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.deactivate();
        let [receive, transmit]: [ActiveQueue; 2] = activation
            .queues
            .try_into()
            .map_err(|_| ActivateError::Setup("another number of queues"))?;
        if !receive.queue.ready() || !transmit.queue.ready() {
            // A driver in the middle of a reset; nothing can move with half a pair.
            self.idle = Some(vec![receive.queue, transmit.queue]);
            return Ok(());
        }
        let events = Arc::clone(&activation.events);
        let host = |what| move |source| ActivateError::Host { what, source };
        self.tap
            .set_offload(offload::tap_flags(activation.features))
            .map_err(host("setting the tap's offloads"))?;
        match &mut self.backend {
            Backend::Kernel(vhost) => vhost
                .start(
                    &activation.memory,
                    activation.features & Cable::FEATURES,
                    vec![receive, transmit],
                )
                .map_err(host("starting vhost-net"))?,
            Backend::Thread(thread) => thread.start(Start {
                memory: activation.memory,
                features: activation.features,
                receive,
                transmit,
                events: activation.events,
            }),
        }
        self.active = true;
        self.handle.attach(Some(events));
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.handle.attach(None);
        if let Some(idle) = self.idle.take() {
            return idle;
        }
        if !std::mem::take(&mut self.active) {
            return Vec::new();
        }
        match &mut self.backend {
            Backend::Kernel(vhost) => vhost.stop(),
            Backend::Thread(thread) => thread.stop().map(Vec::from).unwrap_or_default(),
        }
    }

    fn save(&self) -> DeviceState {
        state::save(self.options, self.handle.is_up())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let link = state::check(state, self.options)?;
        self.handle.known_to_be(link);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
