//! MADT: interrupt controllers (ACPI 6.5, 5.2.12).

use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout::{IO_APIC_BASE, LOCAL_APIC_BASE, SCI};

const HEADER: u32 = 44;
const REVISION: u8 = 5;
/// There are two 8259A as well.
const PCAT_COMPAT: u32 = 1;

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const SOURCE_OVERRIDE: u8 = 2;
const LOCAL_APIC_NMI: u8 = 4;

const ENABLED: u32 = 1;
const ACTIVE_HIGH_LEVEL: u16 = 0x1 | (0x3 << 2);
const ACTIVE_HIGH_EDGE: u16 = 0x1 | (0x1 << 2);
/// "As the bus has it": high and edge for ISA.
const CONFORMS: u16 = 0;
const ALL_PROCESSORS: u8 = 0xff;

/// The I/O APIC's ID, after those of up to 64 vCPUs.
const IO_APIC_ID: u8 = 0xf0;

/// The table for vCPUs with these APIC IDs.
pub fn build(apic_ids: &[u8]) -> Vec<u8> {
    let mut madt = Sdt::new(
        *b"APIC",
        HEADER,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    madt.write_u32(36, LOCAL_APIC_BASE);
    madt.write_u32(40, PCAT_COMPAT);
    for (uid, &id) in (0..).zip(apic_ids) {
        let [a, b, c, d] = ENABLED.to_le_bytes();
        madt.append_slice(&[LOCAL_APIC, 8, uid, id, a, b, c, d]);
    }
    let [a, b, c, d] = IO_APIC_BASE.to_le_bytes();
    madt.append_slice(&[IO_APIC, 12, IO_APIC_ID, 0, a, b, c, d, 0, 0, 0, 0]);
    // The timer sits at input 2 of the I/O APIC, as on every PC.
    source_override(&mut madt, 0, 2, CONFORMS);
    source_override(&mut madt, SCI, SCI, ACTIVE_HIGH_LEVEL);
    let [a, b] = ACTIVE_HIGH_EDGE.to_le_bytes();
    madt.append_slice(&[LOCAL_APIC_NMI, 6, ALL_PROCESSORS, a, b, 1]);
    madt.update_checksum();
    madt.as_slice().to_vec()
}

fn source_override(madt: &mut Sdt, irq: u8, gsi: u8, flags: u16) {
    let [a, b] = flags.to_le_bytes();
    madt.append_slice(&[SOURCE_OVERRIDE, 10, 0, irq, gsi, 0, 0, 0, a, b]);
}
