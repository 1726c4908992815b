//! Doorbells in guest memory (NVM Express 1.4, 5.7 and 7.13): the driver leaves indices in one page and reads in
//! another at which ones it must write the register as well. A kernel that hears of the register's
//! address then need not know what was written.

use std::sync::atomic::{Ordering, fence};

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::session::page;
use crate::GuestMemory;

/// The two pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shadow {
    doorbells: u64,
    events: u64,
}

/// An index in the pages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    /// The tail of a submission queue.
    Tail(u16),
    /// The head of a completion queue.
    Head(u16),
}

impl Slot {
    /// As the registers lie.
    fn offset(self) -> u64 {
        match self {
            Self::Tail(id) => u64::from(id) * 8,
            Self::Head(id) => u64::from(id) * 8 + 4,
        }
    }
}

impl Shadow {
    /// Takes the pages at these addresses, if they are pages of guest memory.
    pub fn new([doorbells, events]: [u64; 2], memory: &GuestMemory) -> Option<Self> {
        let shadow = Self { doorbells, events };
        shadow.possible(memory).then_some(shadow)
    }

    pub fn possible(&self, memory: &GuestMemory) -> bool {
        page(memory, self.doorbells) && page(memory, self.events)
    }

    /// The driver's index.
    pub fn read(&self, memory: &GuestMemory, slot: Slot) -> Option<u32> {
        let at = GuestAddress(self.doorbells + slot.offset());
        memory
            .load::<u32>(at, Ordering::Acquire)
            .ok()
            .map(u32::from_le)
    }

    /// Puts the index there, as it is when a queue or the pages begin.
    pub fn begin(&self, memory: &GuestMemory, slot: Slot, value: u32) {
        self.store(memory, self.doorbells, slot, value);
        self.store(memory, self.events, slot, value);
    }

    /// Has the driver write the register when it moves on from `value`. What it left in the page before can be read
    /// from then on.
    pub fn ask(&self, memory: &GuestMemory, slot: Slot, value: u32) {
        self.store(memory, self.events, slot, value);
        fence(Ordering::SeqCst);
    }

    fn store(&self, memory: &GuestMemory, page: u64, slot: Slot, value: u32) {
        let at = GuestAddress(page + slot.offset());
        // The pages were found in guest memory, which stays.
        let _ = memory.store(value.to_le(), at, Ordering::Release);
    }
}
