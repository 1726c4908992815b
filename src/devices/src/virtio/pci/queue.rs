//! The registers of one queue, before and while a device uses it.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};

use super::NO_VECTOR;
use crate::GuestMemory;
use crate::virtio::chain::InFlight;

/// What a driver sets about a queue (virtio 1.2, 4.1.4.3), as it wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueRegisters {
    pub(super) size: u16,
    pub(super) enabled: bool,
    pub(super) vector: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    /// Where the device was when it last came to rest.
    #[serde(default)]
    next_available: u16,
    #[serde(default)]
    next_used: u16,
    /// Heads of chains it had taken by then and not returned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unfinished: Vec<u16>,
}

impl QueueRegisters {
    pub(super) fn new(max_size: u16) -> Self {
        Self {
            size: max_size,
            enabled: false,
            vector: NO_VECTOR,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
            unfinished: Vec::new(),
        }
    }

    /// The queue a device works on, or what is wrong with it. A disabled one is never wrong.
    pub(super) fn build(
        &self,
        max_size: u16,
        event_idx: bool,
        memory: &GuestMemory,
    ) -> Result<Queue, String> {
        if !self.enabled {
            return Queue::new(max_size).map_err(|error| error.to_string());
        }
        let state = QueueState {
            max_size,
            next_avail: self.next_available,
            next_used: self.next_used,
            event_idx_enabled: event_idx,
            size: self.size,
            ready: true,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        };
        let queue = Queue::try_from(state).map_err(|error| error.to_string())?;
        // Address 0 means "never set" to `virtio-queue`, and no driver puts a ring there.
        let placed = [self.descriptors, self.available, self.used];
        if placed.contains(&0) || !self.fits() || !queue.is_valid(memory) {
            return Err("a ring is not in guest memory".to_owned());
        }
        Ok(queue)
    }

    /// Whether no ring passes the end of the address space.
    fn fits(&self) -> bool {
        let size = u64::from(self.size);
        let ends = [
            (self.descriptors, size * 16),
            (self.available, size * 2 + 6),
            (self.used, size * 8 + 6),
        ];
        ends.iter()
            .all(|(base, length)| base.checked_add(*length).is_some())
    }

    /// Notes how far the device got.
    pub(super) fn came_to_rest(&mut self, queue: &Queue, unfinished: Vec<u16>) {
        self.next_available = queue.next_avail();
        self.next_used = queue.next_used();
        self.unfinished = unfinished;
    }

    /// Whether a saved queue could have been set by a driver here.
    pub(super) fn possible(&self, max_size: u16) -> bool {
        self.size.is_power_of_two() && self.size <= max_size && self.could_be_unfinished()
    }

    /// Whether each chain is in the table, and there once.
    fn could_be_unfinished(&self) -> bool {
        let heads = &self.unfinished;
        let mut seen = InFlight::default();
        let once = |&head: &u16| head < self.size && seen.take(head).is_ok();
        heads.len() <= usize::from(self.size) && heads.iter().all(once)
    }
}
