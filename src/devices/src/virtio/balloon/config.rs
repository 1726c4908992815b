//! Device configuration space (virtio 1.2, 5.5.4).

use super::handle::Handle;

/// `num_pages`, which the device wishes for, and `actual`. What follows belongs to features that
/// are not offered, and reads as zero.
const BYTES: usize = 8;
const ACTUAL: u64 = 4;

pub(super) fn read(handle: &Handle, offset: u64, data: &mut [u8]) {
    let (target, actual) = handle.pages();
    let mut bytes = [0; BYTES];
    bytes[..4].copy_from_slice(&target.to_le_bytes());
    bytes[4..].copy_from_slice(&actual.to_le_bytes());
    let start = usize::try_from(offset).unwrap_or(BYTES).min(BYTES);
    let count = data.len().min(BYTES - start);
    data[..count].copy_from_slice(&bytes[start..start + count]);
}

/// Only `actual` is the driver's, and only as a whole.
pub(super) fn write(handle: &Handle, offset: u64, data: &[u8]) {
    if let (ACTUAL, &[a, b, c, d]) = (offset, data) {
        handle.set_actual(u32::from_le_bytes([a, b, c, d]));
    }
}
