//! What a driver does with a port: lists, tables, commands.

use super::*;
use crate::ahci::port::bits::{at, cmd};

/// Where a port's command list, received frames and tables are.
pub(super) const LISTS: u64 = 0x1_0000;
pub(super) const FRAMES: u64 = 0x1_8000;
pub(super) const TABLES: u64 = 0x10_0000;
pub(super) const TABLE_BYTES: u64 = 0x1000;
pub(super) const DATA: u64 = 0x40_0000;

pub(super) const ATAPI: u32 = 1 << 5;
pub(super) const WRITES: u32 = 1 << 6;
pub(super) const RESETS: u32 = 1 << 8;
pub(super) const CLEARS_BUSY: u32 = 1 << 10;

pub(super) const TASK_FILE_ERROR: u32 = 1 << 30;
pub(super) const HOST_BUS_ERROR: u32 = 1 << 29;
pub(super) const INTERFACE_ERROR: u32 = 1 << 27;
pub(super) const OVERFLOW: u32 = 1 << 24;

/// Address and length of a piece of memory.
pub(super) type Piece = (u64, u32);

/// A command frame with the bit for logical addresses set.
pub(super) fn frame(code: u8, features: u16, lba: u64, count: u16) -> [u8; 20] {
    let lba = lba.to_le_bytes();
    let [features_low, features_high] = features.to_le_bytes();
    let [count_low, count_high] = count.to_le_bytes();
    let mut frame = [0; 20];
    frame[..4].copy_from_slice(&[0x27, 0x80, code, features_low]);
    frame[4..7].copy_from_slice(&lba[..3]);
    frame[7] = 0x40;
    frame[8..11].copy_from_slice(&lba[3..6]);
    frame[11] = features_high;
    frame[12] = count_low;
    frame[13] = count_high;
    frame
}

/// A queued read (0x60) or write (0x61).
pub(super) fn queued_frame(code: u8, slot: u32, lba: u64, blocks: u16) -> [u8; 20] {
    frame(code, blocks, lba, (slot as u16) << 3)
}

pub(super) fn table(port: u64, slot: u32) -> u64 {
    TABLES + (port * 32 + u64::from(slot)) * TABLE_BYTES
}

impl Rig {
    /// As Linux starts a port whose link is up.
    pub(super) fn start_port(&self, port: u64) {
        self.set_port(port, at::CLB, (LISTS + port * 0x400) as u32);
        self.set_port(port, at::CLBU, 0);
        self.set_port(port, at::FB, (FRAMES + port * 0x100) as u32);
        self.set_port(port, at::FBU, 0);
        self.set_port(port, at::CMD, cmd::RECEIVE);
        self.set_port(port, at::SERR, u32::MAX);
        self.set_port(port, at::IS, u32::MAX);
        self.set_port(port, at::IE, 0x7dc0_007f);
        self.set_port(port, at::CMD, cmd::RECEIVE | cmd::START);
    }

    pub(super) fn stop_port(&self, port: u64) {
        self.set_port(port, at::CMD, cmd::RECEIVE);
        self.until("the port to stop", || {
            self.port(port, at::CMD) & cmd::RUNNING == 0
        });
    }

    /// As drivers recover from an error.
    pub(super) fn restart_port(&self, port: u64) {
        self.stop_port(port);
        self.start_port(port);
    }

    /// Writes a command without issuing it.
    pub(super) fn prepare(&self, port: u64, slot: u32, frame: &[u8], flags: u32, pieces: &[Piece]) {
        let table = table(port, slot);
        let header = LISTS + port * 0x400 + u64::from(slot) * 32;
        let first = 5 | flags | (pieces.len() as u32) << 16;
        self.put(header, &first.to_le_bytes());
        self.put(header + 4, &0xdead_u32.to_le_bytes());
        self.put(header + 8, &table.to_le_bytes());
        self.put(table, frame);
        for (index, (address, length)) in (0_u64..).zip(pieces) {
            let entry = table + 0x80 + index * 16;
            self.put(entry, &address.to_le_bytes());
            self.put(entry + 12, &length.wrapping_sub(1).to_le_bytes());
        }
    }

    pub(super) fn issue(&self, port: u64, slots: u32) {
        self.set_port(port, at::CI, slots);
    }

    /// Waits for the end of a command and takes its events.
    pub(super) fn finish(&self, port: u64, slot: u32) -> u32 {
        self.until("a command", || {
            let failed = TASK_FILE_ERROR | HOST_BUS_ERROR | INTERFACE_ERROR;
            self.port(port, at::CI) & 1 << slot == 0 || self.port(port, at::IS) & failed != 0
        });
        let events = self.port(port, at::IS);
        self.set_port(port, at::IS, events);
        events
    }

    /// One command that is not queued, in slot 0; the events it ended with.
    pub(super) fn run(&self, port: u64, frame: &[u8], flags: u32, pieces: &[Piece]) -> u32 {
        self.prepare(port, 0, frame, flags, pieces);
        self.issue(port, 1);
        self.finish(port, 0)
    }

    /// Issues queued commands that are prepared, and waits for all of them.
    pub(super) fn run_queued(&self, port: u64, slots: u32) -> u32 {
        self.set_port(port, at::SACT, slots);
        self.issue(port, slots);
        self.until("queued commands", || {
            self.port(port, at::SACT) & slots == 0 || self.port(port, at::IS) & TASK_FILE_ERROR != 0
        });
        let events = self.port(port, at::IS);
        self.set_port(port, at::IS, events);
        events
    }

    /// Bytes the controller says it moved for the command in `slot`.
    pub(super) fn moved(&self, port: u64, slot: u32) -> u32 {
        let header = LISTS + port * 0x400 + u64::from(slot) * 32;
        self.memory.read_obj(GuestAddress(header + 4)).unwrap()
    }

    /// Status and error register.
    pub(super) fn task(&self, port: u64) -> (u8, u8) {
        let [status, error, ..] = self.port(port, at::TFD).to_le_bytes();
        (status, error)
    }

    pub(super) fn received(&self, port: u64, offset: u64, length: usize) -> Vec<u8> {
        self.get(FRAMES + port * 0x100 + offset, length)
    }
}
