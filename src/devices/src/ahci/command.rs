//! Commands as drivers leave them in memory: list, table and data (AHCI 1.3.1, 4.2.2 and 4.2.3).
//!
//! Everything is copied out of guest memory once and checked; of the data only addresses remain.

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::fis::{Frame, REGISTER_BYTES};
use crate::GuestMemory;
use crate::virtio::{Buffers, Segment};

/// Bytes of an entry of the command list.
const HEADER_BYTES: u64 = 32;
/// Where the device's count of bytes is in it.
const TRANSFERRED_AT: u64 = 4;
const PACKET_AT: u64 = 0x40;
const DATA_AT: u64 = 0x80;
const DATA_ENTRY_BYTES: usize = 16;

/// Entries of a data table that are looked at: the largest command of a disk with 512-byte blocks
/// (32 MiB) in single pages.
const MOST_ENTRIES: u64 = 8192;
/// Entries read at a time.
const ENTRIES_AT_ONCE: usize = 64;

const HEADER_ATAPI: u32 = 1 << 5;
const ENTRY_LENGTH: u32 = 0x3f_ffff;
const ENTRY_INTERRUPT: u32 = 1 << 31;

/// Something the controller, not the device, failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// An address that is not guest memory.
    Memory,
    /// A frame no device takes.
    Frame,
}

/// A command, fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetched {
    pub frame: Frame,
    /// The command table holds a packet for the device.
    pub atapi: bool,
    table: GuestAddress,
    entries: u64,
}

/// Where the data of a command is.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// As many bytes as the command needs, or fewer if the driver gave fewer.
    pub buffers: Buffers,
    /// The driver wants to hear when these are done.
    pub marked: bool,
}

/// Address of the byte count of the command in `slot`.
pub(super) fn transferred_at(list: u64, slot: u32) -> Option<GuestAddress> {
    let offset = HEADER_BYTES * u64::from(slot) + TRANSFERRED_AT;
    list.checked_add(offset).map(GuestAddress)
}

/// Reads the command in `slot` of the list at `list`.
pub(super) fn fetch(memory: &GuestMemory, list: u64, slot: u32) -> Result<Fetched, Fault> {
    let header = at(GuestAddress(list), HEADER_BYTES * u64::from(slot))?;
    let [flags, _, low, high] = read_words(memory, header)?;
    let table = GuestAddress(u64::from(low & !0x7f) | u64::from(high) << 32);
    // A register frame has five doublewords; the table has room for sixteen.
    if !(5..=16).contains(&(flags & 0x1f)) {
        return Err(Fault::Frame);
    }
    let mut bytes = [0; REGISTER_BYTES];
    read(memory, table, &mut bytes)?;
    Ok(Fetched {
        frame: Frame::parse(&bytes).ok_or(Fault::Frame)?,
        atapi: flags & HEADER_ATAPI != 0,
        table,
        entries: u64::from(flags >> 16),
    })
}

impl Fetched {
    /// The packet for the device.
    pub fn packet(&self, memory: &GuestMemory) -> Result<[u8; 16], Fault> {
        let mut packet = [0; 16];
        read(memory, at(self.table, PACKET_AT)?, &mut packet)?;
        Ok(packet)
    }

    /// The first `needed` bytes of the command's memory.
    pub fn data(&self, memory: &GuestMemory, needed: u64) -> Result<Data, Fault> {
        let mut data = Data::default();
        let entries = self.entries.min(MOST_ENTRIES);
        let mut chunk = [0; ENTRIES_AT_ONCE * DATA_ENTRY_BYTES];
        let mut done = 0;
        while done < entries && data.buffers.len() < needed {
            let count = (entries - done).min(ENTRIES_AT_ONCE as u64);
            let bytes = &mut chunk[..count as usize * DATA_ENTRY_BYTES];
            let offset = DATA_AT + done * DATA_ENTRY_BYTES as u64;
            read(memory, at(self.table, offset)?, bytes)?;
            for entry in bytes.chunks_exact(DATA_ENTRY_BYTES) {
                data.add(memory, entry, needed)?;
            }
            done += count;
        }
        Ok(data)
    }
}

impl Data {
    fn add(&mut self, memory: &GuestMemory, entry: &[u8], needed: u64) -> Result<(), Fault> {
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&entry[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        let left = needed - self.buffers.len();
        if left == 0 {
            return Ok(());
        }
        let [low, high, last] = [word(0), word(4), word(12)];
        // Both address and length are even.
        let address = GuestAddress(u64::from(low & !1) | u64::from(high) << 32);
        let length = u64::from((last & ENTRY_LENGTH) | 1) + 1;
        let length = length.min(left);
        let inside = address.0.checked_add(length).is_some()
            && memory.check_range(address, length as usize, Permissions::ReadWrite);
        if !inside {
            return Err(Fault::Memory);
        }
        self.marked |= last & ENTRY_INTERRUPT != 0;
        // At most 4 MiB.
        let length = length as u32;
        self.buffers.push(Segment { address, length });
        Ok(())
    }
}

fn at(base: GuestAddress, offset: u64) -> Result<GuestAddress, Fault> {
    base.0
        .checked_add(offset)
        .map(GuestAddress)
        .ok_or(Fault::Memory)
}

fn read(memory: &GuestMemory, address: GuestAddress, bytes: &mut [u8]) -> Result<(), Fault> {
    memory.read_slice(bytes, address).map_err(|_| Fault::Memory)
}

fn read_words(memory: &GuestMemory, address: GuestAddress) -> Result<[u32; 4], Fault> {
    let mut bytes = [0; 16];
    read(memory, address, &mut bytes)?;
    Ok([0, 4, 8, 12]
        .map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])))
}
