//! Packets for the guest.

use std::sync::Arc;

use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::filter::Rules;
use super::statistics::{Statistics, add};
use super::used::{self, Returned};
use crate::GuestMemory;
use crate::tap::{HEADER_BYTES, MAX_PACKET, Tap};
use crate::virtio::chain::{self, Chain, ChainError, Limits};
use crate::virtio::{ActiveQueue, Buffers, QueueInterrupt};

/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: usize = 10;

/// Buffers of one chain; drivers post one to twenty.
const LIMITS: Limits = Limits {
    segments: 256,
    bytes: 1 << 30,
};

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Delivered,
    /// It never fits the buffers the driver posts.
    Dropped,
    /// The driver has to post buffers first; it will kick when it does.
    Blocked,
}

/// The receive queue while it is served.
pub(super) struct Receiver {
    queue: Queue,
    pub kick: EventFd,
    interrupt: Arc<dyn QueueInterrupt>,
    mergeable: bool,
    /// The packet taken from the tap and not yet delivered.
    packet: Box<[u8]>,
    length: usize,
    /// The packet waits for buffers.
    blocked: bool,
    chain: Chain,
    taken: Vec<(u16, Buffers)>,
    returned: Vec<Returned>,
    /// Used index when the driver was last considered for an interrupt.
    announced: u16,
}

impl Receiver {
    pub fn new(queue: ActiveQueue, features: u64) -> Self {
        Self {
            announced: queue.queue.next_used(),
            queue: queue.queue,
            kick: queue.kick,
            interrupt: queue.interrupt,
            mergeable: features & (1 << VIRTIO_NET_F_MRG_RXBUF) != 0,
            packet: vec![0; MAX_PACKET].into_boxed_slice(),
            length: 0,
            blocked: false,
            chain: Chain::default(),
            taken: Vec::new(),
            returned: Vec::new(),
        }
    }

    pub fn into_queue(self) -> ActiveQueue {
        ActiveQueue {
            queue: self.queue,
            unfinished: Vec::new(),
            kick: self.kick,
            interrupt: self.interrupt,
        }
    }

    /// Whether a packet from the tap could be taken.
    pub fn open(&self) -> bool {
        !self.blocked
    }

    /// The driver posted buffers.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Takes up to `budget` packets and delivers those that `rules` want; tells whether there may be more right now.
    pub fn run(
        &mut self,
        tap: &Tap,
        memory: &GuestMemory,
        rules: &Rules,
        statistics: &Statistics,
        budget: usize,
    ) -> Result<bool, ChainError> {
        if self.blocked {
            return Ok(false);
        }
        self.queue.disable_notification(memory)?;
        let mut more = true;
        for _ in 0..budget {
            if self.length == 0 && !self.take_packet(tap, statistics) {
                more = false;
                break;
            }
            if !rules.want(&self.packet[HEADER_BYTES..self.length]) {
                self.length = 0;
                continue;
            }
            match self.deliver(memory)? {
                Delivery::Delivered => {
                    add(&statistics.received, 1);
                    let bytes = self.length - HEADER_BYTES;
                    add(&statistics.received_bytes, bytes as u64);
                    self.length = 0;
                }
                Delivery::Dropped => {
                    add(&statistics.receive_drops, 1);
                    self.length = 0;
                }
                Delivery::Blocked => {
                    self.blocked = true;
                    more = false;
                    break;
                }
            }
        }
        self.announce(memory)?;
        Ok(more)
    }

    fn announce(&mut self, memory: &GuestMemory) -> Result<(), ChainError> {
        let before = std::mem::replace(&mut self.announced, self.queue.next_used());
        if used::wants_interrupt(&self.queue, memory, before)? {
            self.interrupt.notify();
        }
        Ok(())
    }

    fn take_packet(&mut self, tap: &Tap, statistics: &Statistics) -> bool {
        match tap.receive(&mut self.packet) {
            Ok(Some(length)) if length > HEADER_BYTES => {
                self.length = length;
                true
            }
            Ok(Some(_)) => {
                add(&statistics.receive_drops, 1);
                false
            }
            Ok(None) => false,
            Err(error) => {
                // The interface is down or gone: the same as a pulled cable.
                tracing::debug!(%error, "reading from the tap");
                false
            }
        }
    }

    /// Puts the packet into as few chains as it takes.
    fn deliver(&mut self, memory: &GuestMemory) -> Result<Delivery, ChainError> {
        let start = self.queue.next_avail();
        match self.collect(memory)? {
            Delivery::Delivered => {}
            failed => {
                self.queue.set_next_avail(start);
                return Ok(failed);
            }
        }
        // At most as many as the queue has entries.
        let count = self.taken.len() as u16;
        self.packet[NUM_BUFFERS..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        self.returned.clear();
        let mut rest = &self.packet[..self.length];
        for (head, buffers) in &self.taken {
            let length = (rest.len() as u64).min(buffers.len());
            let (part, after) = rest.split_at(length as usize);
            buffers.write_at(memory, 0, part)?;
            self.returned.push((*head, length as u32));
            rest = after;
        }
        used::publish(&mut self.queue, memory, &self.returned)?;
        Ok(Delivery::Delivered)
    }

    /// Takes chains until the packet fits. Chains are taken off the queue even
    /// when it does not: the caller puts them back.
    fn collect(&mut self, memory: &GuestMemory) -> Result<Delivery, ChainError> {
        self.taken.clear();
        let mut room = 0;
        while room < self.length as u64 {
            if !chain::pop(&mut self.queue, memory, LIMITS, &mut self.chain)? {
                if self.taken.len() >= usize::from(self.queue.size()) {
                    // All the driver can post is not enough.
                    return Ok(Delivery::Dropped);
                }
                if self.queue.enable_notification(memory)? {
                    // Buffers slipped in before the driver could see that it has to kick.
                    self.queue.disable_notification(memory)?;
                    continue;
                }
                return Ok(Delivery::Blocked);
            }
            let buffers = std::mem::take(&mut self.chain.writable);
            if buffers.is_empty() {
                return Err(ChainError::Short {
                    needed: 1,
                    present: 0,
                });
            }
            if !self.mergeable && buffers.len() < self.length as u64 {
                return Ok(Delivery::Dropped);
            }
            room += buffers.len();
            self.taken.push((self.chain.head, buffers));
        }
        Ok(Delivery::Delivered)
    }
}
