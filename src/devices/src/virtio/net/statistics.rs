//! Counters of a network device, as seen from the guest.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, written by the device's thread and read by whoever holds them.
#[derive(Debug, Default)]
pub struct Statistics {
    pub(super) received: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) receive_drops: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) send_drops: AtomicU64,
}

/// The counters at one moment. All count from the device's creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets given to the guest.
    pub received: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// Packets that did not fit the guest's buffers.
    pub receive_drops: u64,
    /// Packets taken from the guest.
    pub sent: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// Packets from the guest that were malformed or that the host did not take.
    pub send_drops: u64,
}

impl Statistics {
    /// The counters now. Each is right; together they may be of slightly different moments.
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            received: load(&self.received),
            received_bytes: load(&self.received_bytes),
            receive_drops: load(&self.receive_drops),
            sent: load(&self.sent),
            sent_bytes: load(&self.sent_bytes),
            send_drops: load(&self.send_drops),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
