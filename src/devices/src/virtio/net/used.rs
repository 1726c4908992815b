//! Returns several chains at once.
//!
//! A packet spread over several buffers must become visible to the driver as a
//! whole (virtio 1.2, 5.1.6.4), which `Queue::add_used`, publishing each chain
//! by itself, cannot do.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::GuestMemory;
use crate::virtio::chain::ChainError;

/// Flags and index in front of either ring.
const RING_HEADER: u64 = 4;

/// A chain to return: its head and the bytes written to it.
pub(super) type Returned = (u16, u32);

/// Makes all of `chains` visible to the driver at once.
pub(super) fn publish(
    queue: &mut Queue,
    memory: &GuestMemory,
    chains: &[Returned],
) -> Result<(), ChainError> {
    let ring = queue.used_ring();
    let mut next = queue.next_used();
    for &(head, written) in chains {
        // The ring is at most 32768 entries, and the transport checked that all lie in guest memory.
        let slot = u64::from(next % queue.size());
        let entry = ring.saturating_add(RING_HEADER + 8 * slot);
        let element = u64::from(head) | u64::from(written) << 32;
        memory
            .write_obj(element.to_le(), GuestAddress(entry))
            .map_err(|_| outside(ring))?;
        next = next.wrapping_add(1);
    }
    memory
        .store(
            next.to_le(),
            GuestAddress(ring.saturating_add(2)),
            Ordering::Release,
        )
        .map_err(|_| outside(ring))?;
    queue.set_next_used(next);
    Ok(())
}

/// Whether the driver wants an interrupt, when `before` was the used index at
/// the last time it was asked.
pub(super) fn wants_interrupt(
    queue: &Queue,
    memory: &GuestMemory,
    before: u16,
) -> Result<bool, ChainError> {
    let now = queue.next_used();
    if now == before {
        return Ok(false);
    }
    // The used index must be visible before the driver's wish is read.
    fence(Ordering::SeqCst);
    let ring = queue.avail_ring();
    let load = |offset: u64| {
        memory
            .load(GuestAddress(ring.saturating_add(offset)), Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(|_| outside(ring))
    };
    if !queue.event_idx_enabled() {
        return Ok(u32::from(load(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0);
    }
    // `used_event` follows the available ring's entries.
    let event = load(RING_HEADER + 2 * u64::from(queue.size()))?;
    let passed = now.wrapping_sub(event).wrapping_sub(1);
    Ok(passed < now.wrapping_sub(before))
}

fn outside(address: u64) -> ChainError {
    ChainError::Memory { address }
}
