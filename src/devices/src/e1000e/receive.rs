//! Packets for the driver: receive descriptors (82574 datasheet, 7.1.4, 7.1.6, 7.1.10).
//!
//! All packets go to the first ring, and the host has looked at checksums: descriptors say that
//! the card did not. Headers are not split from the rest, which "packet split" descriptors allow.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes as _, GuestAddress};

use super::counters::{Counters, Destination, counter};
use super::filter::{self, FCS_BYTES};
use super::frame::{Frame, TAG};
use super::interrupts::cause;
use super::registers::{Registers, at};
use super::ring::Ring;
use crate::GuestMemory;

/// RCTL.
mod rctl {
    /// Descriptors for split packets.
    pub const SPLIT: u32 = 1 << 10;
    pub const STRIP_CHECKSUM: u32 = 1 << 26;
    /// Bytes of a buffer: two bits, and whether they count sixteenfold.
    pub const SIZE: u32 = 16;
    pub const LARGE: u32 = 1 << 25;
    /// Or in KiB, if not zero.
    pub const FLEXIBLE_SIZE: u32 = 27;
    /// How few free descriptors are few.
    pub const THRESHOLD: u32 = 8;
}

/// RFCTL: extended descriptors.
const EXTENDED: u32 = 1 << 15;
/// CTRL: tags are taken out of packets.
const VLAN_MODE: u32 = 1 << 30;

/// Status of a descriptor that was given back.
mod status {
    pub const DONE: u32 = 1 << 0;
    pub const END: u32 = 1 << 1;
    /// Checksums were not looked at.
    pub const UNCHECKED: u32 = 1 << 2;
    pub const TAGGED: u32 = 1 << 3;
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The driver has it, for these causes to interrupt.
    Delivered(u32),
    /// The driver does not want it, or it never fits.
    Dropped,
    /// The driver has to give buffers first.
    Blocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Legacy,
    Extended,
    Split,
}

/// How descriptors look, and how large their buffers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    kind: Kind,
    sizes: [usize; 4],
}

impl Layout {
    fn of(registers: &Registers) -> Self {
        let control = registers.get(at::RCTL);
        if control & rctl::SPLIT != 0 {
            let sizes = registers.get(at::PSRCTL).to_le_bytes().map(usize::from);
            return Self {
                kind: Kind::Split,
                sizes: [
                    sizes[0] * 128,
                    sizes[1] * 1024,
                    sizes[2] * 1024,
                    sizes[3] * 1024,
                ],
            };
        }
        let size = 2048 >> (control >> rctl::SIZE & 3);
        let size = match (control >> rctl::FLEXIBLE_SIZE & 0xf, control & rctl::LARGE) {
            (0, 0) => size,
            (0, _) => size * 16,
            (flexible, _) => flexible as usize * 1024,
        };
        let kind = if registers.has(at::RFCTL, EXTENDED) {
            Kind::Extended
        } else {
            Kind::Legacy
        };
        Self {
            kind,
            sizes: [size, 0, 0, 0],
        }
    }

    /// Bytes that fit the buffers of one descriptor.
    fn room(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Pieces of the ring a descriptor takes.
    fn pieces(&self) -> u32 {
        match self.kind {
            Kind::Legacy | Kind::Extended => 1,
            Kind::Split => 2,
        }
    }
}

/// Gives the driver a packet.
pub(super) fn deliver(
    ring: &mut Ring,
    registers: &Registers,
    counters: &mut Counters,
    memory: &GuestMemory,
    frame: &mut Frame,
) -> Delivery {
    if filter::too_long(registers, frame.bytes()) {
        counters.count(counter::OVERSIZED);
        return Delivery::Dropped;
    }
    if !filter::wanted(registers, frame.bytes()) {
        return Delivery::Dropped;
    }
    let tag = filter::tag(registers, frame.bytes()).filter(|_| registers.has(at::CTRL, VLAN_MODE));
    let checksum = !registers.has(at::RCTL, rctl::STRIP_CHECKSUM);
    let mut length = frame.bytes().len();
    length -= if tag.is_some() { TAG } else { 0 };
    length += if checksum { FCS_BYTES } else { 0 };
    let layout = Layout::of(registers);
    match room_for(ring, &layout, length) {
        Delivery::Delivered(_) => {}
        failed => return failed,
    }
    // From here on nobody asks for the packet again.
    counters.received(
        Destination::of(frame.bytes()),
        (frame.bytes().len() + FCS_BYTES) as u64,
    );
    if tag.is_some() {
        frame.strip_tag();
    }
    if checksum {
        frame.append_checksum();
    }
    let before = ring.available();
    write(ring, &layout, memory, frame.bytes(), tag);
    let few = ring.size() >> (1 + (registers.get(at::RCTL) >> rctl::THRESHOLD & 3));
    let mut causes = cause::RXT0 | cause::RXQ0;
    if before > few && ring.available() <= few {
        causes |= cause::RXDMT0;
    }
    Delivery::Delivered(causes)
}

/// Whether the ring has room for so many bytes.
fn room_for(ring: &Ring, layout: &Layout, length: usize) -> Delivery {
    if ring.size() == 0 {
        return Delivery::Blocked;
    }
    let room = layout.room();
    // A packet is less than 128 KiB and a descriptor has at least 128 bytes.
    let needed = match room {
        0 => return Delivery::Dropped,
        _ => length.div_ceil(room) as u32 * layout.pieces(),
    };
    if needed >= ring.size() {
        // All that the driver can give is not enough.
        Delivery::Dropped
    } else if needed > ring.available() {
        Delivery::Blocked
    } else {
        Delivery::Delivered(0)
    }
}

/// Writes a packet for which there is room.
fn write(
    ring: &mut Ring,
    layout: &Layout,
    memory: &GuestMemory,
    mut rest: &[u8],
    tag: Option<u16>,
) {
    while !rest.is_empty() {
        let address = ring.address();
        let addresses = match layout.kind {
            Kind::Legacy | Kind::Extended => {
                ring.fetch::<16>(memory).map(|bytes| addresses(&bytes))
            }
            Kind::Split => ring.fetch::<32>(memory).map(|bytes| addresses(&bytes)),
        };
        let Some(addresses) = addresses else { return };
        let mut lengths = [0; 4];
        for (buffer, (address, size)) in addresses.into_iter().zip(layout.sizes).enumerate() {
            let (part, after) = rest.split_at(size.min(rest.len()));
            // As on a real bus, what is written to nowhere is gone, and nobody hears of it.
            let _ = memory.write_slice(part, address);
            // Less than 64 KiB, which is more than the largest buffer.
            lengths[buffer] = part.len() as u16;
            rest = after;
        }
        let mut status = status::DONE | status::UNCHECKED;
        if rest.is_empty() {
            status |= status::END;
        }
        if tag.is_some() {
            status |= status::TAGGED;
        }
        give_back(
            layout.kind,
            memory,
            address,
            status,
            lengths,
            tag.unwrap_or(0),
        );
        ring.advance(layout.pieces());
    }
}

/// Addresses of the buffers: as many as the descriptor has room for.
fn addresses(descriptor: &[u8]) -> [GuestAddress; 4] {
    let mut addresses = [GuestAddress(0); 4];
    for (address, bytes) in addresses.iter_mut().zip(descriptor.chunks_exact(8)) {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        *address = GuestAddress(u64::from_le_bytes(word));
    }
    addresses
}

/// Writes a descriptor back, the word with its status last.
fn give_back(
    kind: Kind,
    memory: &GuestMemory,
    descriptor: GuestAddress,
    status: u32,
    lengths: [u16; 4],
    tag: u16,
) {
    let store = |offset: u64, word: u64| {
        let address = GuestAddress(descriptor.0.wrapping_add(offset));
        // It was read from there.
        let _ = memory.store(word.to_le(), address, Ordering::Release);
    };
    let [first, rest @ ..] = lengths.map(u64::from);
    let (status, tag) = (u64::from(status), u64::from(tag) << 48);
    match kind {
        Kind::Legacy => store(8, first | status << 32 | tag),
        Kind::Extended => {
            store(0, 0);
            store(8, status | first << 32 | tag);
        }
        Kind::Split => {
            store(16, rest[0] << 16 | rest[1] << 32 | rest[2] << 48);
            store(24, 0);
            store(0, 0);
            store(8, status | first << 32 | tag);
        }
    }
}
