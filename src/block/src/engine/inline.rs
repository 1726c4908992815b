//! Steps that the engine's own thread makes, for disks that are in memory.
//!
//! A ring has every step that might wait made by a thread of its own, and asks no file of tmpfs whether it would. Two
//! threads are woken then to copy a few pages, which takes many times as long as the copy. There is nothing to wait for
//! in memory, so small steps are made on the spot.

use std::os::fd::AsRawFd as _;

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use super::transfer::{Direction, Transfer};
use crate::raw::RawDisk;

/// Most bytes copied by the engine's thread. More are left to the ring, whose threads may be on other processors.
const MOST_BYTES: u64 = 64 << 10;

/// Whether nothing on `disk` waits for anything but memory.
pub(super) fn in_memory(disk: &RawDisk) -> bool {
    fstatfs(disk).is_ok_and(|status| status.filesystem_type() == TMPFS_MAGIC)
}

/// Makes what is left of a transfer, if it is small; the result is a count or a negated error number, as a ring gives it.
pub(super) fn transfer(transfer: &Transfer, disk: &RawDisk) -> Option<i32> {
    if transfer.left() > MOST_BYTES {
        return None;
    }
    let fd = disk.file().as_raw_fd();
    let buffers = transfer.buffers();
    let (start, count) = (buffers.as_ptr(), buffers.len() as i32);
    let offset = transfer.offset() as i64;
    // SAFETY: the buffers are valid for this direction by the contracts of `Engine::read` and `Engine::write`.
    let result = unsafe {
        match transfer.direction {
            Direction::Read => libc::preadv(fd, start, count, offset),
            Direction::Write => libc::pwritev(fd, start, count, offset),
        }
    };
    Some(as_ring(result))
}

/// Makes a flush.
pub(super) fn flush(disk: &RawDisk) -> i32 {
    // SAFETY: the descriptor is the disk's.
    as_ring(unsafe { libc::fdatasync(disk.file().as_raw_fd()) } as isize)
}

fn as_ring(result: isize) -> i32 {
    if result < 0 {
        -nix::errno::Errno::last_raw()
    } else {
        // At most `MOST_BYTES`.
        result as i32
    }
}
