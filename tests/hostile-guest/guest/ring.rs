//! A split virtqueue (virtio 1.2, 2.7) in the arena, filled by hand.

use crate::io::{Width, load, store};
use crate::memory::{ARENA, clear};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Room for queues of up to 2048 descriptors.
const LENGTH: u64 = 0x2_0000;
const AVAILABLE: u64 = 0x8000;
const USED: u64 = 0xa000;
const TABLE: u64 = 0x1_0000;
const BUFFERS: u64 = 0x1_8000;
/// What attacks use of each of these.
const TOUCHED: u64 = 0x410;

/// One queue's rings, an indirect table and buffers.
#[derive(Clone, Copy)]
pub struct Ring {
    base: u64,
    pub size: u16,
}

/// A descriptor.
#[derive(Clone, Copy)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

impl Ring {
    /// The rings of queue `number`.
    pub fn of(number: u16, size: u16) -> Self {
        Self {
            base: ARENA + u64::from(number) * LENGTH,
            size,
        }
    }

    pub fn clear(&self) {
        for offset in [0, AVAILABLE, USED, TABLE] {
            clear(self.base + offset, TOUCHED);
        }
    }

    /// Descriptors, available ring, used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [self.base, self.base + AVAILABLE, self.base + USED]
    }

    /// The indirect table's address.
    pub fn table(&self) -> u64 {
        self.base + TABLE
    }

    /// Memory for a buffer, 32 KiB.
    pub fn buffer(&self) -> u64 {
        self.base + BUFFERS
    }

    pub fn describe(&self, index: u16, descriptor: Descriptor) {
        describe_at(self.base + 16 * u64::from(index), descriptor);
    }

    /// Writes an entry of the indirect table.
    pub fn describe_indirect(&self, index: u16, descriptor: Descriptor) {
        describe_at(self.table() + 16 * u64::from(index), descriptor);
    }

    /// Puts `head` at `slot` of the available ring, without telling.
    pub fn put(&self, slot: u16, head: u16) {
        let at = self.base + AVAILABLE + 4 + 2 * u64::from(slot % self.size.max(1));
        store(at, Width::Word, head.into());
    }

    /// Tells that so many heads have been offered.
    pub fn set_index(&self, index: u16) {
        store(self.base + AVAILABLE + 2, Width::Word, index.into());
    }

    /// How many the device has returned.
    pub fn used(&self) -> u16 {
        load(self.base + USED + 2, Width::Word) as u16
    }
}

fn describe_at(at: u64, descriptor: Descriptor) {
    store(at, Width::Quad, descriptor.address);
    store(at + 8, Width::Double, descriptor.length.into());
    let links = u64::from(descriptor.flags) | u64::from(descriptor.next) << 16;
    store(at + 12, Width::Double, links);
}
