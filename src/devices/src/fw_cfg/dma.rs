//! Requests that the guest leaves in its memory: control, length and address, 16 bytes, big endian.

use vm_memory::{Bytes, GuestAddress};

use super::FwCfg;
use crate::GuestMemory;

const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// Most bytes moved by one request beyond the end of an item, where a read finds zeroes: no firmware reads there,
/// and a vCPU should not be kept busy for long.
const MAX_ZEROES: u64 = 1 << 20;

/// Most bytes one request may write; the largest item that is written has some dozens.
const MAX_WRITE: u64 = 4096;

impl FwCfg {
    /// Serves the request at `at`. When it lies outside memory there is nowhere to say so.
    pub(super) fn transfer(&mut self, at: u64) {
        let mut request = [0; 16];
        if self
            .memory
            .read_slice(&mut request, GuestAddress(at))
            .is_err()
        {
            tracing::debug!(at, "a fw_cfg request outside memory");
            return;
        }
        let [control, length, high, low] = quarters(&request);
        let address = u64::from(high) << 32 | u64::from(low);
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = self.move_bytes(control, u64::from(length), address);
        let answer = if done { 0 } else { ERROR };
        // Nobody can be told if this fails.
        let _ = self.memory.write_obj(u32::to_be(answer), GuestAddress(at));
    }

    /// Reads, skips or writes; tells whether it could. The first of these in the control word counts.
    fn move_bytes(&mut self, control: u32, length: u64, address: u64) -> bool {
        if control & READ != 0 {
            self.read_to(address, length)
        } else if control & WRITE != 0 {
            self.write_from(address, length)
        } else if control & SKIP != 0 {
            self.advance(length);
            true
        } else {
            true
        }
    }

    fn read_to(&mut self, address: u64, length: u64) -> bool {
        let memory = self.memory.clone();
        let bytes = self.advance(length);
        let there = bytes.len() as u64;
        let Some(end) = address.checked_add(there) else {
            return false;
        };
        let zeroes = length - there;
        zeroes <= MAX_ZEROES
            && memory.write_slice(bytes, GuestAddress(address)).is_ok()
            && write_zeroes(&memory, end, zeroes)
    }

    fn write_from(&mut self, address: u64, length: u64) -> bool {
        if length > MAX_WRITE {
            return false;
        }
        let mut bytes = vec![0; length as usize];
        if self
            .memory
            .read_slice(&mut bytes, GuestAddress(address))
            .is_err()
        {
            return false;
        }
        let (key, offset) = (self.registers.selected, self.registers.offset);
        self.advance(length);
        self.items.write(key, offset, &bytes)
    }
}

/// In pieces: what is taken from the allocator for a guest's wish stays with the process.
fn write_zeroes(memory: &GuestMemory, address: u64, length: u64) -> bool {
    const PIECE: [u8; 4096] = [0; 4096];
    let pieces = (0..length).step_by(PIECE.len());
    pieces
        .map(|done| (done, (length - done).min(4096)))
        .all(|(done, count)| {
            let at = address.checked_add(done);
            at.is_some_and(|at| {
                memory
                    .write_slice(&PIECE[..count as usize], GuestAddress(at))
                    .is_ok()
            })
        })
}

fn quarters(bytes: &[u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes
            .iter()
            .fold(0, |word, &byte| word << 8 | u32::from(byte));
    }
    words
}
