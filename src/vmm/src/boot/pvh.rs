//! The PVH boot protocol's start information (Xen, docs/misc/pvh.pandoc).

use lodge_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::{Ramdisk, memory_map};
use crate::layout::{COMMAND_LINE, PVH_START_INFO, ZERO_PAGE};

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const START_INFO_LENGTH: u64 = 56;
const MODULE_LENGTH: u64 = 32;

/// Writes start information; `None` when it does not fit.
pub fn write(memory: &GuestMemory, rsdp: u64, ramdisk: Option<Ramdisk>) -> Option<()> {
    let modules_at = PVH_START_INFO + START_INFO_LENGTH;
    let map_at = modules_at + MODULE_LENGTH;
    let map = memory_map::ranges(memory);

    let mut info = Vec::with_capacity(512);
    info.extend(MAGIC.to_le_bytes());
    info.extend(VERSION.to_le_bytes());
    info.extend(0_u32.to_le_bytes()); // flags
    info.extend(u32::from(ramdisk.is_some()).to_le_bytes());
    info.extend(if ramdisk.is_some() { modules_at } else { 0 }.to_le_bytes());
    info.extend(COMMAND_LINE.to_le_bytes());
    info.extend(rsdp.to_le_bytes());
    info.extend(map_at.to_le_bytes());
    info.extend((map.len() as u32).to_le_bytes());
    info.extend(0_u32.to_le_bytes());

    let module = ramdisk.unwrap_or(Ramdisk {
        address: 0,
        length: 0,
    });
    info.extend(module.address.to_le_bytes());
    info.extend(module.length.to_le_bytes());
    info.extend([0; 16]); // no command line of its own

    for range in map {
        info.extend(range.base.to_le_bytes());
        info.extend(range.length.to_le_bytes());
        info.extend(range.kind.to_le_bytes());
        info.extend(0_u32.to_le_bytes());
    }
    let fits = PVH_START_INFO + info.len() as u64 <= ZERO_PAGE;
    fits.then_some(())?;
    memory.write_slice(&info, GuestAddress(PVH_START_INFO)).ok()
}
