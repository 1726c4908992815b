//! The reporting queue (virtio 1.2, 5.5.6.7): the buffers themselves are the free pages.
//!
//! Discarding gives the guest back what the memory held at the very first: zeroes, or, where the
//! monitor has mapped a file (an initial ramdisk), the bytes of that file. The guest must not
//! expect anything of either: `PAGE_POISON` is not negotiated, so the content of a page that it uses
//! again is undefined. Nor does it learn anything: the bytes are those it was booted with.

use super::ranges::Ranges;
use crate::virtio::buffers::Buffers;
use crate::virtio::chain::Limits;

/// Linux reports 32 blocks of up to 4 MiB at a time. Ranges that overlap are discarded once, so that
/// the work for one request is bounded by the guest's memory.
pub(super) const LIMITS: Limits = Limits {
    segments: 1024,
    bytes: u32::MAX as u64,
};

/// Collects the pages that lie wholly within the buffers, which lie in guest memory.
pub(super) fn collect(buffers: &Buffers, ranges: &mut Ranges) {
    for segment in buffers.segments() {
        let start = segment.address.0;
        ranges.add(start..start + u64::from(segment.length));
    }
}
