//! Packets from the guest.
#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::statistics::{Statistics, add};
use super::used;
use crate::GuestMemory;
use crate::tap::{HEADER_BYTES, MAX_PACKET, Tap};
use crate::virtio::chain::{self, Chain, ChainError, Limits};
use crate::virtio::{ActiveQueue, QueueInterrupt};

/// As many buffers as one vectored call takes, and less than a chain that spans
/// two memory regions could turn into more.
const LIMITS: Limits = Limits {
    segments: 512,
    bytes: 1 << 30,
};

/// Bytes of an Ethernet header, the least that is a packet.
const ETHERNET_HEADER: usize = 14;

/// The transmit queue while it is served.
pub(super) struct Transmitter {
    queue: Queue,
    pub kick: EventFd,
    interrupt: Arc<dyn QueueInterrupt>,
    chain: Chain,
    buffers: Vec<libc::iovec>,
    /// Used index when the driver was last considered for an interrupt.
    announced: u16,
}

impl Transmitter {
    pub fn new(queue: ActiveQueue) -> Self {
        Self {
            announced: queue.queue.next_used(),
            queue: queue.queue,
            kick: queue.kick,
            interrupt: queue.interrupt,
            chain: Chain::default(),
            buffers: Vec::new(),
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

    /// Sends up to `budget` packets; tells whether there may be more right now.
    pub fn run(
        &mut self,
        tap: &Tap,
        memory: &GuestMemory,
        statistics: &Statistics,
        budget: usize,
    ) -> Result<bool, ChainError> {
        self.queue.disable_notification(memory)?;
        let mut more = true;
        for _ in 0..budget {
            if !chain::pop(&mut self.queue, memory, LIMITS, &mut self.chain)? {
                // A packet may have slipped in before the driver could see that it has to kick.
                more = self.queue.enable_notification(memory)?;
                break;
            }
            let length = self.chain.readable.len();
            match self.send(tap, memory) {
                Ok(()) => {
                    add(&statistics.sent, 1);
                    add(&statistics.sent_bytes, length - HEADER_BYTES as u64);
                }
                Err(error) => {
                    tracing::trace!(%error, length, "packet dropped");
                    add(&statistics.send_drops, 1);
                }
            }
            used::publish(&mut self.queue, memory, &[(self.chain.head, 0)])?;
        }
        let before = std::mem::replace(&mut self.announced, self.queue.next_used());
        if used::wants_interrupt(&self.queue, memory, before)? {
            self.interrupt.notify();
        }
        Ok(more)
    }

    fn send(&mut self, tap: &Tap, memory: &GuestMemory) -> io::Result<()> {
        let length = self.chain.readable.len();
        let fits = (HEADER_BYTES + ETHERNET_HEADER) as u64..=MAX_PACKET as u64;
        if !fits.contains(&length) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.buffers.clear();
        self.chain
            .readable
            .iovecs(memory, &mut self.buffers)
            .map_err(io::Error::other)?;
        // SAFETY: the buffers lie in guest memory, which `memory` keeps mapped during the call.
        unsafe { tap.send(&self.buffers) }
    }
}
