//! What the guest is told about its memory.

use lodge_devices::GuestMemory;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::layout::{
    ABOVE_1M, CONVENTIONAL_END, ECAM_BASE, ECAM_LENGTH, GENERATION_ID, KVM_PRIVATE_BASE,
};
use crate::memory::PAGE;

/// Usable memory.
pub const USABLE: u32 = 1;

/// Addresses the system keeps away from.
pub const RESERVED: u32 = 2;

/// One range of the memory map, in the terms of E820 and PVH alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First guest-physical address.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
    /// [`USABLE`] or [`RESERVED`].
    pub kind: u32,
}

/// The map in ascending order.
pub fn ranges(memory: &GuestMemory) -> Vec<Range> {
    let range = |base, end: u64, kind| Range {
        base,
        length: end - base,
        kind,
    };
    let mut map = vec![
        range(0, CONVENTIONAL_END, USABLE),
        range(CONVENTIONAL_END, ABOVE_1M, RESERVED),
    ];
    for region in memory.iter() {
        let (base, end) = (region.start_addr().0, region.start_addr().0 + region.len());
        map.push(range(base.max(ABOVE_1M), end, USABLE));
        if base == 0 {
            map.push(range(ECAM_BASE, ECAM_BASE + ECAM_LENGTH, RESERVED));
            let end = KVM_PRIVATE_BASE + 4 * PAGE;
            map.push(range(GENERATION_ID, end, RESERVED));
        }
    }
    map
}
