//! What a guest says about its memory (virtio 1.2, 5.5.6.3): records of tag and value.

use virtio_queue::QueueT;

use super::session::Session;
use crate::GuestMemory;
use crate::virtio::buffers::Buffers;
use crate::virtio::chain::{self, ChainError, Limits};

/// A `le16` tag and a `le64` value, packed.
const RECORD: usize = 10;
/// Most records read of one buffer. Linux has 16 tags.
const RECORDS: usize = 64;

/// Nothing bounds what a driver adds to its records, but it has no reason to give more.
pub(super) const LIMITS: Limits = Limits {
    segments: 64,
    bytes: 64 << 10,
};

/// A guest's memory in its own eyes. Each value is there if the guest gave it; it may be any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes read from swap since the guest booted.
    pub swap_in: Option<u64>,
    /// Bytes written to swap since the guest booted.
    pub swap_out: Option<u64>,
    /// Page faults that waited for a disk, since the guest booted.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Bytes not used for anything.
    pub free: Option<u64>,
    /// Bytes the guest manages.
    pub total: Option<u64>,
    /// Bytes that programs could get without swapping.
    pub available: Option<u64>,
    /// Bytes that hold copies of what is on disks.
    pub caches: Option<u64>,
}

impl Statistics {
    /// Reads a driver's buffer. Unknown tags and a cut-off last record are ignored; of several
    /// records with the same tag the last counts.
    pub(super) fn read(memory: &GuestMemory, buffers: &Buffers) -> Result<Self, ChainError> {
        let mut bytes = [0; RECORD * RECORDS];
        let length = buffers.len().min(bytes.len() as u64) as usize;
        buffers.read_at(memory, 0, &mut bytes[..length])?;
        let mut statistics = Self::default();
        let (records, _) = bytes[..length].as_chunks::<RECORD>();
        for &[a, b, ref value @ ..] in records {
            if let Some(field) = statistics.field(u16::from_le_bytes([a, b])) {
                *field = Some(u64::from_le_bytes(*value));
            }
        }
        Ok(statistics)
    }

    fn field(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        Some(match tag {
            0 => &mut self.swap_in,
            1 => &mut self.swap_out,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free,
            5 => &mut self.total,
            6 => &mut self.available,
            7 => &mut self.caches,
            _ => return None,
        })
    }
}

impl Session<'_> {
    /// Reads the driver's buffer when it comes and holds it; returning it is how new statistics are
    /// asked for. Tells whether to come back at once.
    pub(super) fn serve_statistics(&mut self, number: usize) -> Result<bool, ChainError> {
        let active = &mut self.queues[number];
        let queue = &mut active.queue;
        if self.held.is_none() && chain::pop(queue, &self.memory, LIMITS, &mut self.chain)? {
            let statistics = Statistics::read(&self.memory, &self.chain.readable)?;
            self.handle.learn(statistics);
            self.held = Some((number, self.chain.head));
        }
        if let Some((_, head)) = self.held
            && self.handle.take_request()
        {
            queue.add_used(&self.memory, head, 0)?;
            self.held = None;
            if queue.needs_notification(&self.memory)? {
                active.interrupt.notify();
            }
        }
        let more = queue.enable_notification(&self.memory)?;
        // A second buffer waits until the first is returned.
        Ok(more && self.held.is_none())
    }
}
