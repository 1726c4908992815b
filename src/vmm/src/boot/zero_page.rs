//! Linux's 64-bit boot protocol: `boot_params`, page tables and segment descriptors.

use lodge_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::bzimage::SETUP_HEADER;
use super::{Ramdisk, memory_map};
use crate::layout::{BOOT_GDT, BOOT_PAGE_TABLES, COMMAND_LINE, ZERO_PAGE};
use crate::memory::PAGE;

const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const ACPI_RSDP: usize = 0x070;

/// Boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;

/// Descriptors of the boot protocol: `__BOOT_CS` is 0x10, `__BOOT_DS` 0x18.
pub const GDT: [u64; 5] = [
    0,
    0,
    0x00af_9b00_0000_ffff, // 64-bit code
    0x00cf_9300_0000_ffff, // data
    0x008f_8b00_0000_ffff, // task state segment, busy
];

/// Writes everything the 64-bit entry point relies on; `None` when it does not fit.
///
/// Without a `setup_header` (an ELF kernel has none) a minimal one is made up.
pub fn write(
    memory: &GuestMemory,
    rsdp: u64,
    setup_header: Option<&[u8]>,
    ramdisk: Option<Ramdisk>,
) -> Option<()> {
    let mut page = [0_u8; PAGE as usize];
    match setup_header {
        Some(header) => {
            page.get_mut(SETUP_HEADER..SETUP_HEADER + header.len())?
                .copy_from_slice(header);
        }
        None => {
            page[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
            page[0x202..0x206].copy_from_slice(b"HdrS");
            page[0x206..0x208].copy_from_slice(&0x020c_u16.to_le_bytes());
            page[0x230..0x234].copy_from_slice(&0x0100_0000_u32.to_le_bytes());
        }
    }
    page[0x210] = LOADER_UNDEFINED;
    put_u32(&mut page, 0x228, COMMAND_LINE);
    if let Some(ramdisk) = ramdisk {
        put_u32(&mut page, 0x218, ramdisk.address);
        put_u32(&mut page, 0x21c, ramdisk.length);
        put_u32(&mut page, 0x0c0, ramdisk.address >> 32);
        put_u32(&mut page, 0x0c4, ramdisk.length >> 32);
    }
    page[ACPI_RSDP..ACPI_RSDP + 8].copy_from_slice(&rsdp.to_le_bytes());
    let map = memory_map::ranges(memory);
    page[E820_ENTRIES] = u8::try_from(map.len()).ok()?;
    for (slot, range) in map.iter().enumerate() {
        let at = E820_TABLE + slot * 20;
        page[at..at + 8].copy_from_slice(&range.base.to_le_bytes());
        page[at + 8..at + 16].copy_from_slice(&range.length.to_le_bytes());
        page[at + 16..at + 20].copy_from_slice(&range.kind.to_le_bytes());
    }
    memory.write_slice(&page, GuestAddress(ZERO_PAGE)).ok()?;
    write_words(memory, BOOT_GDT, &GDT)?;
    write_page_tables(memory)
}

fn put_u32(page: &mut [u8], at: usize, value: u64) {
    page[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

/// Maps the first 4 GiB one to one in pages of 2 MiB.
fn write_page_tables(memory: &GuestMemory) -> Option<()> {
    const PRESENT_WRITABLE: u64 = 0x3;
    const LARGE: u64 = 0x80;
    let pdpt = BOOT_PAGE_TABLES + PAGE;
    let directories = pdpt + PAGE;
    write_words(memory, BOOT_PAGE_TABLES, &[pdpt | PRESENT_WRITABLE])?;
    for quarter in 0..4 {
        let directory = directories + quarter * PAGE;
        write_words(memory, pdpt + quarter * 8, &[directory | PRESENT_WRITABLE])?;
        let pages: Vec<u64> = (0..512)
            .map(|page| (quarter << 30) | (page << 21) | LARGE | PRESENT_WRITABLE)
            .collect();
        write_words(memory, directory, &pages)?;
    }
    Some(())
}

fn write_words(memory: &GuestMemory, at: u64, words: &[u64]) -> Option<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(at)).ok()
}
