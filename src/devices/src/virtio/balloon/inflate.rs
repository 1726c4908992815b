//! The inflate queue (virtio 1.2, 5.5.6): numbers of pages that go into the balloon.

use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use super::PAGE;
use super::ranges::Ranges;
use crate::GuestMemory;
use crate::virtio::buffers::Buffers;
use crate::virtio::chain::{ChainError, Limits};

/// 16384 pages. Linux names 256 at a time, Windows up to 1024.
pub(super) const LIMITS: Limits = Limits {
    segments: 128,
    bytes: 64 << 10,
};

/// Numbers read at a time.
const NUMBERS: usize = 256;

/// Collects the pages named in `buffers`, a `le32` each. Pages that are not memory, such as the hole
/// below 4 GiB, are left out: there is nothing behind them to give back. So is a cut-off last number.
pub(super) fn collect(
    memory: &GuestMemory,
    buffers: &Buffers,
    ranges: &mut Ranges,
) -> Result<(), ChainError> {
    let mut bytes = [0; 4 * NUMBERS];
    let mut done = 0;
    while done < buffers.len() {
        let length = (buffers.len() - done).min(bytes.len() as u64) as usize;
        buffers.read_at(memory, done, &mut bytes[..length])?;
        done += length as u64;
        let (numbers, _) = bytes[..length].as_chunks::<4>();
        for number in numbers {
            let start = u64::from(u32::from_le_bytes(*number)) * PAGE;
            let page = GuestAddress(start);
            if memory.check_range(page, PAGE as usize, Permissions::ReadWrite) {
                ranges.add(start..start + PAGE);
            }
        }
    }
    Ok(())
}
