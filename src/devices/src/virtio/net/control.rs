//! The control queue: what the driver has the device do beyond moving packets (virtio 1.2, 5.1.6.5).

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_net as abi;
use virtio_queue::Queue;

use super::filter::{Filter, MAX_ADDRESSES, Rules, Table, is_individual};
use super::pairs::Pairs;
use crate::GuestMemory;
use crate::event_loop::{LoopHandle, Registration};
use crate::virtio::chain::{Chain, ChainError, Limits};
use crate::virtio::served::{self, Handler, Slot};
use crate::virtio::{ActivateError, Activation, Buffers};

/// `struct virtio_net_ctrl` up to the command's own data: class and command.
const HEADER: u64 = 2;

/// The control queue, which the event loop serves while the device is active.
pub(super) struct Control {
    events: LoopHandle,
    slot: Slot<Commands>,
    registration: Option<Registration>,
}

impl Control {
    pub fn new(events: &LoopHandle) -> Self {
        Self {
            events: events.clone(),
            slot: Arc::default(),
            registration: None,
        }
    }

    /// Serves the only queue of `activation`.
    pub fn start(
        &mut self,
        activation: Activation,
        commands: Commands,
    ) -> Result<(), ActivateError> {
        let started = served::start(&self.events, &self.slot, activation, commands)?;
        self.registration = Some(started);
        Ok(())
    }

    /// Gives the queue back, if it is served. No command is obeyed from then on.
    pub fn stop(&mut self) -> Vec<Queue> {
        self.registration = None;
        served::stop(&self.slot)
    }
}

/// Obeys the commands of a driver.
pub(super) struct Commands {
    /// What the driver accepted.
    pub features: u64,
    pub pairs: Arc<Mutex<Pairs>>,
    pub filter: Arc<Filter>,
}

impl Handler for Commands {
    /// Drivers give a command two to five buffers, and the longest of them, tables of addresses, are some kilobytes.
    const LIMITS: Limits = Limits {
        segments: 256,
        bytes: 1 << 20,
    };

    fn handle(&mut self, _: usize, memory: &GuestMemory, chain: &Chain) -> Result<u32, ChainError> {
        // A command whose outcome nobody could hear of is none.
        if chain.writable.is_empty() {
            return Err(ChainError::Short {
                needed: 1,
                present: 0,
            });
        }
        let done = self.obey(memory, &chain.readable)?;
        let ack = if done {
            abi::VIRTIO_NET_OK
        } else {
            abi::VIRTIO_NET_ERR
        };
        chain.writable.write_at(memory, 0, &[ack as u8])?;
        Ok(1)
    }
}

impl Commands {
    /// Obeys one command; `false` when it is unknown, malformed, not negotiated or impossible.
    fn obey(&self, memory: &GuestMemory, request: &Buffers) -> Result<bool, ChainError> {
        let mut header = [0; HEADER as usize];
        if request.len() < HEADER {
            return Ok(false);
        }
        request.read_at(memory, 0, &mut header)?;
        let [class, command] = header.map(u32::from);
        match (class, command) {
            (abi::VIRTIO_NET_CTRL_RX, _) if self.accepted(abi::VIRTIO_NET_F_CTRL_RX) => {
                Ok(match (command, data(memory, request)?) {
                    (abi::VIRTIO_NET_CTRL_RX_PROMISC, Some([on @ 0..=1])) => {
                        self.change(|rules| rules.promiscuous = on == 1)
                    }
                    (abi::VIRTIO_NET_CTRL_RX_ALLMULTI, Some([on @ 0..=1])) => {
                        self.change(|rules| rules.all_multicast = on == 1)
                    }
                    _ => false,
                })
            }
            (abi::VIRTIO_NET_CTRL_MAC, abi::VIRTIO_NET_CTRL_MAC_TABLE_SET)
                if self.accepted(abi::VIRTIO_NET_F_CTRL_RX) =>
            {
                Ok(match tables(memory, request)? {
                    Some([unicast, multicast]) => self.change(|rules| {
                        rules.unicast = unicast;
                        rules.multicast = multicast;
                    }),
                    None => false,
                })
            }
            (abi::VIRTIO_NET_CTRL_MAC, abi::VIRTIO_NET_CTRL_MAC_ADDR_SET)
                if self.accepted(abi::VIRTIO_NET_F_CTRL_MAC_ADDR) =>
            {
                let mac = data(memory, request)?.filter(is_individual);
                Ok(mac.is_some_and(|mac| self.change(|rules| rules.mac = mac)))
            }
            (abi::VIRTIO_NET_CTRL_MQ, abi::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET)
                if self.accepted(abi::VIRTIO_NET_F_MQ) =>
            {
                let count = data(memory, request)?.map(u16::from_le_bytes);
                let enable = |count| self.pairs.lock().unwrap().enable(usize::from(count));
                Ok(count.is_some_and(|count| enable(count).is_ok()))
            }
            _ => Ok(false),
        }
    }

    /// Changes which packets are wanted, or nothing if the host refuses.
    fn change(&self, change: impl FnOnce(&mut Rules)) -> bool {
        let mut rules = self.filter.rules().clone();
        change(&mut rules);
        if let Err(error) = self.pairs.lock().unwrap().filter(&rules.for_tap()) {
            tracing::debug!(%error, "the tap takes no filter");
            return false;
        }
        self.filter.set(rules);
        true
    }

    fn accepted(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }
}

/// A command's own data, if there are exactly so many bytes of it.
fn data<const N: usize>(
    memory: &GuestMemory,
    request: &Buffers,
) -> Result<Option<[u8; N]>, ChainError> {
    if request.len() != HEADER + N as u64 {
        return Ok(None);
    }
    let mut data = [0; N];
    request.read_at(memory, HEADER, &mut data)?;
    Ok(Some(data))
}

/// The tables of addresses that follow a header: of its own, and of groups. `None` if they are malformed.
fn tables(memory: &GuestMemory, request: &Buffers) -> Result<Option<[Table; 2]>, ChainError> {
    let mut at = HEADER;
    let mut tables = [const { None }; 2];
    for (table, multicast) in tables.iter_mut().zip([false, true]) {
        let mut count = [0; 4];
        if request.len() < at + 4 {
            return Ok(None);
        }
        request.read_at(memory, at, &mut count)?;
        let count = u32::from_le_bytes(count);
        at += 4;
        let end = at + 6 * u64::from(count);
        if request.len() < end {
            return Ok(None);
        }
        *table = if count as usize > MAX_ADDRESSES {
            Some(Table::overflowing())
        } else {
            let mut addresses = vec![[0; 6]; count as usize];
            request.read_at(memory, at, addresses.as_flattened_mut())?;
            Table::of(addresses, multicast)
        };
        at = end;
    }
    let [Some(unicast), Some(multicast)] = tables else {
        return Ok(None);
    };
    Ok((at == request.len()).then_some([unicast, multicast]))
}
