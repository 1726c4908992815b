//! A carrier for guests without a host: it keeps the queues until they are taken back.

use std::io;

use virtio_queue::Queue;

use super::{ActiveQueue, Carrier, SEQPACKET, Vsock};
use crate::GuestMemory;
use crate::event_loop::LoopHandle;

pub(crate) const CID: u32 = 0x1234_5678;

#[derive(Default)]
struct Parked {
    queues: Vec<ActiveQueue>,
}

impl Carrier for Parked {
    fn features(&self) -> u64 {
        SEQPACKET
    }

    fn start(&mut self, _: &GuestMemory, _: u64, queues: Vec<ActiveQueue>) -> io::Result<()> {
        self.queues = queues;
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let queues = std::mem::take(&mut self.queues);
        queues.into_iter().map(|queue| queue.queue).collect()
    }
}

impl Vsock {
    /// A device that needs no vhost-vsock and moves nothing.
    pub fn parked(events: &LoopHandle) -> Self {
        Self::with(Box::new(Parked::default()), CID, events)
    }
}
