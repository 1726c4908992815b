//! The control queue: what the driver has the device do beyond moving packets (virtio 1.2, 5.1.6.5).

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_net as abi;
use virtio_queue::Queue;

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
            (abi::VIRTIO_NET_CTRL_MQ, abi::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET)
                if self.accepted(abi::VIRTIO_NET_F_MQ) =>
            {
                let Some(count) = data(memory, request)? else {
                    return Ok(false);
                };
                let count = usize::from(u16::from_le_bytes(count));
                Ok(self.pairs.lock().unwrap().enable(count).is_ok())
            }
            _ => Ok(false),
        }
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
