//! A ring of descriptors (82574 datasheet, 7.1.8 and 7.2.3).
//!
//! Head and tail count pieces of 16 bytes. The card owns what lies from head to tail.

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes as _, GuestAddress};

use crate::GuestMemory;

/// Bytes of a descriptor. Those for split packets count for two.
pub(super) const PIECE: u64 = 16;

/// Offsets of a ring's registers from its first.
mod at {
    pub const BASE_LOW: u64 = 0x00;
    pub const BASE_HIGH: u64 = 0x04;
    pub const LENGTH: u64 = 0x08;
    pub const HEAD: u64 = 0x10;
    pub const TAIL: u64 = 0x18;
}

/// Bytes come in multiples of 128.
const LENGTH_MASK: u32 = 0x000f_ff80;

/// The registers of a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    base: u64,
    /// In bytes.
    length: u32,
    head: u16,
    tail: u16,
    /// Its descriptors are nowhere. The driver sets it up anew.
    #[serde(default)]
    broken: bool,
}

impl Ring {
    /// Reads the register at `offset` from the ring's first; `None` when it has no such register.
    pub fn read(&self, offset: u64) -> Option<u32> {
        match offset {
            at::BASE_LOW => Some(self.base as u32),
            at::BASE_HIGH => Some((self.base >> 32) as u32),
            at::LENGTH => Some(self.length),
            at::HEAD => Some(self.head.into()),
            at::TAIL => Some(self.tail.into()),
            _ => None,
        }
    }

    /// Writes it; tells whether the ring has such a register.
    pub fn write(&mut self, offset: u64, value: u32) -> bool {
        match offset {
            at::BASE_LOW => self.base = self.base & !0xffff_ffff | u64::from(value & !0xf),
            at::BASE_HIGH => self.base = self.base & 0xffff_ffff | u64::from(value) << 32,
            at::LENGTH => self.length = value & LENGTH_MASK,
            at::HEAD => self.head = value as u16,
            at::TAIL => self.tail = value as u16,
            _ => return false,
        }
        self.broken &= matches!(offset, at::HEAD | at::TAIL);
        true
    }

    /// A saved ring, as a driver could have set it.
    pub fn restored(self) -> Self {
        Self {
            base: self.base & !0xf,
            length: self.length & LENGTH_MASK,
            ..self
        }
    }

    /// All pieces.
    pub fn size(&self) -> u32 {
        self.length / PIECE as u32
    }

    /// Pieces the card owns: none while head or tail are beyond the end.
    pub fn available(&self) -> u32 {
        let (size, head, tail) = (self.size(), u32::from(self.head), u32::from(self.tail));
        if self.broken || head >= size || tail >= size {
            return 0;
        }
        if tail >= head {
            tail - head
        } else {
            size - head + tail
        }
    }

    /// Where the descriptor at the head is.
    pub fn address(&self) -> GuestAddress {
        GuestAddress(self.base.wrapping_add(u64::from(self.head) * PIECE))
    }

    /// Reads the descriptor at the head. `None` when it is nowhere: the ring is left alone then until the driver sets it up
    /// anew.
    pub fn fetch<const N: usize>(&mut self, memory: &GuestMemory) -> Option<[u8; N]> {
        let mut descriptor = [0; N];
        let address = self.address();
        if let Err(error) = memory.read_slice(&mut descriptor, address) {
            tracing::debug!(%error, address = address.0, "a ring is outside guest memory");
            self.broken = true;
            return None;
        }
        Some(descriptor)
    }

    /// Gives back `pieces` at the head.
    pub fn advance(&mut self, pieces: u32) {
        let next = u32::from(self.head) + pieces;
        // Less than the size, which fits.
        self.head = if next < self.size() { next as u16 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(length: u32, head: u32, tail: u32) -> Ring {
        let mut ring = Ring::default();
        assert!(ring.write(at::LENGTH, length));
        assert!(ring.write(at::HEAD, head));
        assert!(ring.write(at::TAIL, tail));
        ring
    }

    #[test]
    fn counts_what_the_card_owns() {
        for (length, head, tail, available) in [
            (128, 0, 0, 0),
            (128, 0, 7, 7),
            (128, 6, 2, 4),
            (128, 8, 0, 0),
            (128, 0, 8, 0),
            (127, 0, 1, 0),
            (0, 0, 0, 0),
            (u32::MAX, 0, 0xffff, 0),
            (u32::MAX, 0, 0xfff7, 0xfff7),
        ] {
            assert_eq!(ring(length, head, tail).available(), available);
        }
    }

    #[test]
    fn goes_round() {
        let mut ring = ring(128, 6, 2);
        for head in [7, 0, 1, 2] {
            ring.advance(1);
            assert_eq!(ring.read(at::HEAD), Some(head));
        }
        assert_eq!(ring.available(), 0);
        // An odd head and descriptors of two pieces.
        ring.write(at::HEAD, 7);
        ring.advance(2);
        assert_eq!(ring.read(at::HEAD), Some(0));
    }

    #[test]
    fn one_that_is_nowhere_is_left_alone() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let mut ring = ring(128, 0, 7);
        assert!(ring.fetch::<16>(&memory).is_some());
        for base in [0xff8_u32, 0x1000, 0xffff_fff0] {
            ring.write(at::BASE_LOW, base);
            ring.write(at::BASE_HIGH, u32::MAX);
            ring.write(at::TAIL, 7);
            assert_eq!(ring.available(), 7);
            assert!(ring.fetch::<16>(&memory).is_none());
            assert_eq!(ring.available(), 0);
            ring.write(at::TAIL, 6);
            assert_eq!(ring.available(), 0);
        }
        ring.write(at::BASE_LOW, 0);
        ring.write(at::BASE_HIGH, 0);
        assert_eq!(ring.available(), 6);
    }
}
