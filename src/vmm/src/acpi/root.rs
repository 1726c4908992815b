//! RSDP, RSDT and XSDT: where all other tables are found (ACPI 6.5, 5.2.5 to 5.2.8).

use acpi_tables::sdt::Sdt;

use super::{Checksum, HEADER, OEM_ID, OEM_REVISION, OEM_TABLE_ID, Pointer, checksum};

/// Revision of RSDT and XSDT.
const REVISION: u8 = 1;

/// With an XSDT.
const RSDP_REVISION: u8 = 2;
const RSDP_LENGTH: u32 = 36;
/// What the first checksum covers: all there was in ACPI 1.0.
const RSDP_LENGTH_1_0: u32 = 20;

/// The addresses of RSDT and XSDT in the RSDP.
pub const RSDP_POINTERS: [Pointer; 2] = [
    Pointer {
        offset: 16,
        width: 4,
    },
    Pointer {
        offset: 24,
        width: 8,
    },
];

/// The checksums of the RSDP, in the order in which they must be made.
pub const RSDP_CHECKSUMS: [Checksum; 2] = [
    Checksum {
        offset: 8,
        start: 0,
        length: RSDP_LENGTH_1_0,
    },
    Checksum {
        offset: 32,
        start: 0,
        length: RSDP_LENGTH,
    },
];

/// The root pointer.
pub fn rsdp(rsdt: u32, xsdt: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RSDP_LENGTH as usize);
    bytes.extend(b"RSD PTR ");
    bytes.push(0);
    bytes.extend(OEM_ID);
    bytes.push(RSDP_REVISION);
    bytes.extend(rsdt.to_le_bytes());
    bytes.extend(RSDP_LENGTH.to_le_bytes());
    bytes.extend(u64::from(xsdt).to_le_bytes());
    bytes.extend([0; 4]);
    for sum in RSDP_CHECKSUMS {
        bytes[sum.offset as usize] = checksum(&bytes[..sum.length as usize]);
    }
    bytes
}

/// The list of tables in 32 bits, for systems that know no other.
pub fn rsdt(tables: &[u32]) -> Vec<u8> {
    let entries: Vec<u8> = tables
        .iter()
        .flat_map(|table| table.to_le_bytes())
        .collect();
    table(*b"RSDT", &entries)
}

/// The list of tables in 64 bits.
pub fn xsdt(tables: &[u32]) -> Vec<u8> {
    let wide = tables.iter().map(|&table| u64::from(table));
    let entries: Vec<u8> = wide.flat_map(u64::to_le_bytes).collect();
    table(*b"XSDT", &entries)
}

/// The pointers in a list of `count` tables, each of `width` bytes.
pub fn entries(count: usize, width: u8) -> Vec<Pointer> {
    let offset = |number: usize| HEADER as u32 + number as u32 * u32::from(width);
    (0..count)
        .map(|number| Pointer {
            offset: offset(number),
            width,
        })
        .collect()
}

fn table(signature: [u8; 4], entries: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(
        signature,
        HEADER as u32,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(entries);
    table.update_checksum();
    table.as_slice().to_vec()
}
