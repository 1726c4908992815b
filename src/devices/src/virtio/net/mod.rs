//! Virtio network device (virtio 1.2, 5.1): pairs of queues, each on a queue of the tap, and a control queue.
//!
//! Where the host has vhost-net the kernel moves the packets; else a thread for each pair does. The event loop
//! serves the control queue, by which the driver says how many pairs it uses and which packets it wants.

mod config;
mod control;
mod filter;
mod handle;
mod offload;
mod pair;
mod pairs;
mod receive;
mod session;
mod state;
mod statistics;
mod transmit;
mod used;
mod vhost;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_net as abi;
use virtio_queue::Queue;

use self::control::{Commands, Control};
use self::filter::{Filter, Rules};
pub use self::handle::Handle;
use self::pair::{Pair, Session};
use self::pairs::Pairs;
use self::state::Told;
pub use self::statistics::{Statistics, Totals};
use super::queue_thread::Prologue;
use super::{ActivateError, Activation, VirtioDevice};
use crate::event_loop::LoopHandle;
use crate::state::{DeviceState, RestoreError};
use crate::tap::Tap;

/// Most pairs of queues of a device.
pub const MAX_QUEUE_PAIRS: usize = 8;

/// Packets a driver may have under way in one queue, in descriptors.
const QUEUE_SIZE: u16 = 256;

/// Commands a driver may have under way, in descriptors.
const CONTROL_QUEUE_SIZE: u16 = 64;

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

/// What a pair of queues is served by.
#[derive(Debug)]
pub struct QueuePair<T = OwnedFd> {
    /// A queue of the tap, opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, and `IFF_MULTI_QUEUE` where there are several pairs.
    pub tap: T,
    /// `/dev/vhost-net`, opened for this pair, if the kernel is to move its packets; else a thread does.
    pub vhost: Option<OwnedFd>,
}

/// A virtio network device.
pub struct Net {
    options: Options,
    queue_sizes: Vec<u16>,
    pairs: Arc<Mutex<Pairs>>,
    filter: Arc<Filter>,
    /// Absent from interfaces of guests that were saved when there was none.
    control: Option<Control>,
    /// Queues that the driver's features leave without a use.
    idle: Vec<Queue>,
    statistics: Arc<Statistics>,
    handle: Handle,
}

impl Net {
    /// A device with `pairs` of queues, 1 to [`MAX_QUEUE_PAIRS`] on the queues of one tap, and with a control queue if
    /// there is an event loop to serve it. Threads start at once and run `prologue` first.
    ///
    /// # Errors
    /// When there are more or fewer pairs, or several without a control queue, a descriptor is not what it should be, or the host
    /// refuses.
    pub fn new(
        pairs: Vec<QueuePair>,
        control: Option<&LoopHandle>,
        options: Options,
        prologue: &Prologue,
    ) -> io::Result<Self> {
        let pairs = pairs.into_iter().map(|pair| {
            Ok(QueuePair {
                tap: Tap::new(pair.tap)?,
                vhost: pair.vhost,
            })
        });
        let pairs = pairs.collect::<io::Result<_>>()?;
        Self::with(pairs, control, options, prologue)
    }

    /// A device driven by hand on sockets that carry whole packets with their headers.
    ///
    /// # Errors
    /// From the sockets, or when there are more or fewer than there may be.
    #[cfg(feature = "fuzzing")]
    pub fn on_sockets(
        sockets: Vec<OwnedFd>,
        control: &LoopHandle,
        options: Options,
    ) -> io::Result<Self> {
        let pairs = sockets.into_iter().map(|socket| {
            Ok(QueuePair {
                tap: Tap::carrying(socket)?,
                vhost: None,
            })
        });
        let pairs = pairs.collect::<io::Result<_>>()?;
        let prologue: Prologue = Arc::new(|| {});
        Self::with(pairs, Some(control), options, &prologue)
    }

    fn with(
        pairs: Vec<QueuePair<Tap>>,
        control: Option<&LoopHandle>,
        options: Options,
        prologue: &Prologue,
    ) -> io::Result<Self> {
        let most = if control.is_some() {
            MAX_QUEUE_PAIRS
        } else {
            1
        };
        if !(1..=most).contains(&pairs.len()) {
            let count = pairs.len();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{count} pairs of queues, 1 to {most} are possible"),
            ));
        }
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * pairs.len()];
        queue_sizes.extend(control.map(|_| CONTROL_QUEUE_SIZE));
        let statistics = Arc::<Statistics>::default();
        let filter = Arc::new(Filter::new(Rules::new(options.mac)));
        let pairs = pairs.into_iter();
        let pairs = pairs
            .map(|on| Pair::new(on, &filter, &statistics, Arc::clone(prologue)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            options,
            queue_sizes,
            pairs: Arc::new(Mutex::new(Pairs::new(pairs)?)),
            filter,
            control: control.map(Control::new),
            idle: Vec::new(),
            statistics,
            handle: Handle::new(),
        })
    }

    /// What the monitor keeps when the device itself is behind its transport.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Counters of the threads; they stay zero where the kernel moves the packets
    /// (the tap's own counters tell the same).
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Pairs of queues that there are.
    fn most_pairs(&self) -> usize {
        self.queue_sizes.len() / 2
    }

    /// Hands the queues of an activation to who serves them.
    fn start(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let features = activation.features;
        let accepted = |feature: u32| features & (1 << feature) != 0;
        if activation.queues.len() != self.queue_sizes.len() {
            return Err(ActivateError::Setup("another number of queues"));
        }
        // The control queue comes after the last pair, or where the second would begin if the driver knows of no second
        // (virtio 1.2, 5.1.2).
        let known = if accepted(abi::VIRTIO_NET_F_MQ) {
            self.most_pairs()
        } else {
            1
        };
        let mut queues = activation.queues.into_iter();
        let mut pairs = Vec::with_capacity(known);
        while pairs.len() < known
            && let (Some(receive), Some(transmit)) = (queues.next(), queues.next())
        {
            pairs.push([receive, transmit]);
        }
        let control = self.control.as_mut();
        let control = control.filter(|_| accepted(abi::VIRTIO_NET_F_CTRL_VQ));
        let controlling = control.and_then(|control| Some((control, queues.next()?)));
        self.idle = queues.map(|active| active.queue).collect();
        let session = Session {
            memory: activation.memory.clone(),
            features,
            events: Arc::clone(&activation.events),
        };
        let rules = self.filter.rules().for_tap();
        {
            let mut all = self.pairs.lock().unwrap();
            let host = |what| move |source| ActivateError::Host { what, source };
            all.filter(&rules)
                .map_err(host("setting the tap's filter"))?;
            all.activate(session, pairs)?;
        }
        // Commands are about pairs that are there.
        if let Some((control, queue)) = controlling {
            let commands = Commands {
                features,
                pairs: Arc::clone(&self.pairs),
                filter: Arc::clone(&self.filter),
            };
            let activation = Activation {
                memory: activation.memory,
                features,
                queues: vec![queue],
                events: activation.events,
            };
            control.start(activation, commands)?;
        }
        Ok(())
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
        let only_if = |offered, feature: u32| u64::from(offered) << feature;
        1 << abi::VIRTIO_NET_F_MAC
            | 1 << abi::VIRTIO_NET_F_MTU
            | 1 << abi::VIRTIO_NET_F_STATUS
            | 1 << abi::VIRTIO_NET_F_MRG_RXBUF
            | only_if(self.control.is_some(), abi::VIRTIO_NET_F_CTRL_VQ)
            | only_if(self.control.is_some(), abi::VIRTIO_NET_F_CTRL_RX)
            | only_if(self.control.is_some(), abi::VIRTIO_NET_F_CTRL_MAC_ADDR)
            | only_if(self.most_pairs() > 1, abi::VIRTIO_NET_F_MQ)
            | offload::FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let now = config::Now {
            mac: self.filter.rules().mac,
            up: self.handle.is_up(),
            // There are few enough.
            pairs: self.most_pairs() as u16,
        };
        config::read(self.options, &now, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.deactivate();
        let events = Arc::clone(&activation.events);
        if let Err(error) = self.start(activation) {
            self.deactivate();
            return Err(error);
        }
        self.handle.attach(Some(events));
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.handle.attach(None);
        // First of all, so that nobody starts what is being stopped.
        let control = self.control.as_mut().map(Control::stop);
        let mut queues = self.pairs.lock().unwrap().deactivate();
        queues.extend(control.unwrap_or_default());
        queues.append(&mut self.idle);
        queues
    }

    fn reset(&mut self) {
        // The tap hears of it from the next driver.
        self.filter.set(Rules::new(self.options.mac));
        self.pairs.lock().unwrap().reset();
    }

    fn save(&self) -> DeviceState {
        let told = self.control.as_ref().map(|_| Told {
            enabled_pairs: self.pairs.lock().unwrap().enabled(),
            rules: self.filter.rules().clone(),
        });
        state::save(self.options, self.handle.is_up(), told)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let (link, told) = state::check(state, self.options, self.most_pairs())?;
        let told = told.unwrap_or_else(|| Told {
            enabled_pairs: 1,
            rules: Rules::new(self.options.mac),
        });
        self.pairs.lock().unwrap().restore(told.enabled_pairs);
        self.filter.set(told.rules);
        self.handle.known_to_be(link);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
