//! Counters of a block device.

use std::sync::atomic::{AtomicU64, Ordering};

use lodge_block::engine::IoError;

/// Counters, written by the queue threads and read by whoever holds them.
#[derive(Debug, Default)]
pub struct Statistics {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) write_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) discards: AtomicU64,
    pub(crate) discard_bytes: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) no_space: AtomicU64,
    pub(crate) throttled_ns: AtomicU64,
}

/// The counters at one moment. All count from the device's creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Reads that succeeded.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Discards and zeroings that succeeded.
    pub discards: u64,
    /// Bytes discarded or zeroed.
    pub discard_bytes: u64,
    /// Requests that failed, for whatever reason.
    pub errors: u64,
    /// Of these, those that failed because the datastore was full.
    pub no_space: u64,
    /// Time for which queues left requests where they were because of the disk's limits, in microseconds: the sum of all queues.
    pub throttled_us: u64,
}

impl Statistics {
    /// Counts a request that the host failed.
    pub(crate) fn failed(&self, error: IoError) {
        add(&self.errors, 1);
        if error == IoError::NoSpace {
            add(&self.no_space, 1);
        }
    }

    /// The counters now. Each is right; together they may be of slightly different moments.
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            reads: load(&self.reads),
            read_bytes: load(&self.read_bytes),
            writes: load(&self.writes),
            write_bytes: load(&self.write_bytes),
            flushes: load(&self.flushes),
            discards: load(&self.discards),
            discard_bytes: load(&self.discard_bytes),
            errors: load(&self.errors),
            no_space: load(&self.no_space),
            throttled_us: load(&self.throttled_ns) / 1000,
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
