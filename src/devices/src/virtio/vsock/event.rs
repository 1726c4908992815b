//! The event queue (virtio 1.2, 5.10.6.7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::QUEUE_SIZES;
use crate::GuestMemory;
use crate::virtio::chain::{Chain, ChainError, Limits};
use crate::virtio::served::Handler;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`: connections are lost, and the address may be another one.
pub(super) const TRANSPORT_RESET: u32 = 0;

/// Puts the event into the first buffer there is. Until it is due, and afterwards, buffers stay the driver's.
pub(super) struct Announcer {
    pub(super) due: Arc<AtomicBool>,
}

impl Handler for Announcer {
    const LIMITS: Limits = Limits {
        segments: QUEUE_SIZES[2] as usize,
        bytes: u32::MAX as u64,
    };

    fn ready(&mut self, _: usize) -> bool {
        self.due.load(Ordering::Acquire)
    }

    fn handle(&mut self, _: usize, memory: &GuestMemory, chain: &Chain) -> Result<u32, ChainError> {
        // `struct virtio_vsock_event`.
        let event = TRANSPORT_RESET.to_le_bytes();
        chain.writable.write_at(memory, 0, &event)?;
        self.due.store(false, Ordering::Release);
        Ok(event.len() as u32)
    }
}
