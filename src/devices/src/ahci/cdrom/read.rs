//! Reading discs, piece by piece through a buffer: images need not end with a whole block, and
//! guest memory need not be aligned as `O_DIRECT` asks.

use std::io::IoSliceMut;
use std::os::fd::AsFd;

use lodge_block::raw::RawDisk;
use nix::errno::Errno;

use super::drive::BLOCK;
use crate::GuestMemory;
use crate::ahci::command::{Data, Fault};

/// Bytes read at a time, and what `O_DIRECT` asks of their place.
const PIECE: usize = 64 << 10;
const ALIGNMENT: usize = 4096;

/// How a read went.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Whole {
        bytes: u64,
    },
    /// There is no point in going on.
    Dropped,
    Controller(Fault),
    Medium(Errno),
}

/// Reads discs.
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    pub fn new() -> Self {
        Self {
            buffer: vec![0; PIECE + ALIGNMENT],
        }
    }

    /// Moves blocks of the disc to as much memory as there is, for as long as `go_on`.
    pub fn read(
        &mut self,
        disc: &RawDisk,
        offset: u64,
        data: &Data,
        memory: &GuestMemory,
        go_on: impl Fn() -> bool,
    ) -> Outcome {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let buffer = &mut self.buffer[start..start + PIECE];
        let mut done = 0;
        while done < data.buffers.len() {
            // A long one is not waited for, neither by whoever stops the machine nor by a driver
            // that took the command back.
            if done != 0 && !go_on() {
                return Outcome::Dropped;
            }
            let count = (data.buffers.len() - done).min(PIECE as u64) as usize;
            let whole = count.next_multiple_of(BLOCK as usize);
            if let Err(errno) = read_piece(disc, offset + done, &mut buffer[..whole]) {
                return Outcome::Medium(errno);
            }
            let piece = &buffer[..count];
            if data.buffers.write_at(memory, done, piece).is_err() {
                return Outcome::Controller(Fault::Memory);
            }
            done += count as u64;
        }
        Outcome::Whole { bytes: done }
    }
}

/// Fills `buffer` from the disc; behind its end are zeroes.
fn read_piece(disc: &RawDisk, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let present = disc.size().saturating_sub(offset).min(buffer.len() as u64) as usize;
    let mut done = 0;
    while done < present {
        // Discs are shorter than file offsets reach.
        let at = (offset + done as u64) as libc::off_t;
        let mut rest = [IoSliceMut::new(&mut buffer[done..])];
        match nix::sys::uio::preadv(disc.as_fd(), &mut rest, at) {
            // Somebody cut the image.
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    buffer[present..].fill(0);
    Ok(())
}
