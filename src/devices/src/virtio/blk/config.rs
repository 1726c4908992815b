//! Configuration space of a block device (`struct virtio_blk_config`, virtio 1.2, 5.2.4).

use lodge_block::SECTOR;
use lodge_block::raw::RawDisk;

use super::Options;

/// Length of the identity a driver may ask for (virtio 1.2, 5.2.6).
pub(super) const SERIAL_BYTES: usize = 20;

/// Most sectors of one discard or zeroing, 2 GiB: what the host does in one call
/// is bounded, so that a pause need not wait long for it.
pub(super) const MAX_RANGE_SECTORS: u32 = 4 << 20;

/// Ranges one discard or zeroing request may name.
const MAX_RANGES: u32 = 1;

/// Header and status take two descriptors of a chain.
const OVERHEAD_DESCRIPTORS: u16 = 2;

pub(super) const BYTES: usize = 60;

pub(super) fn bytes(disk: &RawDisk, options: &Options, queue_size: u16) -> [u8; BYTES] {
    let logical = disk.logical_block();
    let mut space = [0; BYTES];
    let mut put = |offset: usize, field: &[u8]| {
        space[offset..offset + field.len()].copy_from_slice(field);
    };
    put(0, &(disk.size() / SECTOR).to_le_bytes());
    let seg_max = u32::from(queue_size - OVERHEAD_DESCRIPTORS);
    put(12, &seg_max.to_le_bytes());
    put(20, &logical.to_le_bytes());
    // Both are powers of two.
    let physical_exponent = disk.physical_block().ilog2() - logical.ilog2();
    put(24, &[physical_exponent as u8]);
    put(34, &options.queues.to_le_bytes());
    let alignment = logical / SECTOR as u32;
    for (offset, field) in [
        (36, MAX_RANGE_SECTORS),
        (40, MAX_RANGES),
        (44, alignment),
        (48, MAX_RANGE_SECTORS),
        (52, MAX_RANGES),
    ] {
        put(offset, &field.to_le_bytes());
    }
    // write_zeroes_may_unmap
    put(56, &[u8::from(disk.discard())]);
    space
}

/// Copies what lies inside the structure.
pub(super) fn read(space: &[u8], offset: u64, data: &mut [u8]) {
    let Some(rest) = usize::try_from(offset)
        .ok()
        .and_then(|offset| space.get(offset..))
    else {
        return;
    };
    let count = rest.len().min(data.len());
    data[..count].copy_from_slice(&rest[..count]);
}

/// The identity as the driver reads it: padded with NUL, without one if it is 20 bytes long.
pub(super) fn serial(serial: &str) -> [u8; SERIAL_BYTES] {
    let mut bytes = [0; SERIAL_BYTES];
    let count = serial.len().min(SERIAL_BYTES);
    bytes[..count].copy_from_slice(&serial.as_bytes()[..count]);
    bytes
}
