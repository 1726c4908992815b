//! The machine's description for the guest: ACPI 6.5 tables.
//!
//! A directly booted guest finds them at [`ACPI_BASE`]; firmware fetches them and puts them where it
//! likes ([`crate::firmware`]), so [`assemble`] also tells which of their bytes depend on the place.

mod dsdt;
mod fadt;
mod hotplug;
mod madt;
mod pvpanic;
mod root;
mod vmgenid;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;

use crate::layout::{ACPI_BASE, ACPI_END, LAST_BUS};

const OEM_ID: [u8; 6] = *b"LODGE ";
const OEM_TABLE_ID: [u8; 8] = *b"LODGEVMM";
const OEM_REVISION: u32 = 1;

/// The FACS must be aligned so (ACPI 6.5, 5.2.10); everything else gets 8.
pub const ALIGNMENT: usize = 64;

/// Where a table's checksum is, and how long a header is (ACPI 6.5, 5.2.6).
const CHECKSUM: usize = 9;
const HEADER: usize = 36;

/// What the tables depend on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// APIC IDs of the vCPUs.
    pub apic_ids: Vec<u8>,
    /// First port of the power management block.
    pub pm_base: u16,
    /// PCI Express configuration space, if it is switched on.
    pub ecam: Option<Range<u64>>,
    /// Windows for PCI memory BARs below 4 GiB.
    pub low_windows: Vec<Range<u64>>,
    /// Window for 64-bit PCI memory BARs; may be empty.
    pub high_window: Range<u64>,
    /// Whether there are a PS/2 keyboard and mouse.
    pub keyboard: bool,
}

/// A pointer to one of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// Where it is, from the start of the blob that holds it.
    pub offset: u32,
    /// 4 or 8 bytes.
    pub width: u8,
}

/// A checksum of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Where it is, from the start of the blob.
    pub offset: u32,
    /// First byte it covers.
    pub start: u32,
    /// How many bytes it covers.
    pub length: u32,
}

/// The tables for one place in memory.
pub struct Tables {
    /// The root pointer.
    pub rsdp: Vec<u8>,
    /// All other tables.
    pub tables: Vec<u8>,
    /// Pointers within `tables`; the root pointer's are [`root::RSDP_POINTERS`].
    pub pointers: Vec<Pointer>,
    /// Checksums of tables that hold pointers; the root pointer's are [`root::RSDP_CHECKSUMS`].
    pub checksums: Vec<Checksum>,
}

pub use root::{RSDP_CHECKSUMS, RSDP_POINTERS};

/// AML that is ready.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// All tables as they belong at [`ACPI_BASE`]. The RSDP comes first.
///
/// `None` when they do not fit below [`ACPI_END`], which 64 vCPUs are far from.
pub fn build(machine: &Machine) -> Option<Vec<u8>> {
    let Tables {
        rsdp: mut bytes,
        tables,
        ..
    } = assemble(machine, u32::try_from(ACPI_BASE).ok()? + ALIGNMENT as u32);
    bytes.resize(ALIGNMENT, 0);
    bytes.extend(tables);
    (ACPI_BASE + bytes.len() as u64 <= ACPI_END).then_some(bytes)
}

/// The tables for the address `base`, a multiple of [`ALIGNMENT`].
pub fn assemble(machine: &Machine, base: u32) -> Tables {
    let mut blob = Blob {
        base,
        bytes: Vec::new(),
        pointers: Vec::new(),
        checksums: Vec::new(),
    };
    let dsdt = blob.append(&dsdt::build(machine), 8, &[]);
    let facs = blob.append(&serialize(&FACS::new()), ALIGNMENT, &[]);
    let fadt = fadt::build(machine, dsdt, facs);
    let mut tables = vec![
        blob.append(&fadt, 8, fadt::POINTERS),
        blob.append(&madt::build(&machine.apic_ids), 8, &[]),
    ];
    if let Some(ecam) = &machine.ecam {
        tables.push(blob.append(&mcfg(ecam.start), 8, &[]));
    }
    let rsdt = blob.append(&root::rsdt(&tables), 8, &root::entries(tables.len(), 4));
    let xsdt = blob.append(&root::xsdt(&tables), 8, &root::entries(tables.len(), 8));
    Tables {
        rsdp: root::rsdp(rsdt, xsdt),
        tables: blob.bytes,
        pointers: blob.pointers,
        checksums: blob.checksums,
    }
}

/// The tables for firmware to move: assembled for address 0, with zeroes where checksums change. Firmware sums over the
/// old checksum as well, and some takes it for zero.
pub fn movable(machine: &Machine) -> Tables {
    let mut tables = assemble(machine, 0);
    for sum in &tables.checksums {
        tables.tables[sum.offset as usize] = 0;
    }
    for sum in RSDP_CHECKSUMS {
        tables.rsdp[sum.offset as usize] = 0;
    }
    tables
}

fn mcfg(ecam: u64) -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ecam, 0, 0, LAST_BUS);
    serialize(&mcfg)
}

fn serialize(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// A byte that makes all of them sum to zero together with it.
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0_u8, |sum, &byte| sum.wrapping_add(byte))
        .wrapping_neg()
}

struct Blob {
    base: u32,
    bytes: Vec<u8>,
    pointers: Vec<Pointer>,
    checksums: Vec<Checksum>,
}

impl Blob {
    /// Returns the address of the table. `pointers` count from its start.
    fn append(&mut self, table: &[u8], alignment: usize, pointers: &[Pointer]) -> u32 {
        let at = self.bytes.len().next_multiple_of(alignment);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(table);
        let at = at as u32;
        self.pointers.extend(pointers.iter().map(|pointer| Pointer {
            offset: at + pointer.offset,
            ..*pointer
        }));
        if !pointers.is_empty() {
            self.checksums.push(Checksum {
                offset: at + CHECKSUM as u32,
                start: at,
                length: table.len() as u32,
            });
        }
        self.base + at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(vcpus: u8) -> Machine {
        let window = 0xc000_0000..0xfec0_0000;
        Machine {
            apic_ids: (0..vcpus).collect(),
            pm_base: 0x600,
            ecam: Some(0xb000_0000..0xc000_0000),
            low_windows: vec![window],
            high_window: 1 << 35..1 << 36,
            keyboard: false,
        }
    }

    fn table(blob: &[u8], address: u64) -> &[u8] {
        let at = (address - ACPI_BASE) as usize;
        let length = u32::from_le_bytes(blob[at + 4..at + 8].try_into().unwrap()) as usize;
        &blob[at..at + length]
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
    }

    #[test]
    fn every_table_is_reached_and_sums_to_zero() {
        for vcpus in [1, 64] {
            let blob = build(&machine(vcpus)).unwrap();
            assert_eq!(&blob[..8], b"RSD PTR ");
            assert_eq!(sum(&blob[..20]), 0);
            assert_eq!(sum(&blob[..36]), 0);
            let table_at = |address| table(&blob, address);
            let xsdt = table_at(u64_at(&blob, 24));
            assert_eq!(&xsdt[..4], b"XSDT");
            let mut names = Vec::new();
            for entry in xsdt[36..].chunks(8) {
                let table = table_at(u64_at(entry, 0));
                assert_eq!(sum(table), 0, "{:?}", &table[..4]);
                names.push(table[..4].to_vec());
                if &table[..4] == b"FACP" {
                    let dsdt = u64_at(table, 140);
                    assert_eq!(sum(table_at(dsdt)), 0);
                }
            }
            assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
            let rsdt = table_at(u64::from(u32::from_le_bytes(
                blob[16..20].try_into().unwrap(),
            )));
            assert_eq!((&rsdt[..4], rsdt.len()), (&b"RSDT"[..], 36 + 3 * 4));
            assert_eq!(sum(rsdt), 0);
        }
    }

    #[test]
    fn a_keyboard_is_announced_where_there_is_one() {
        let eisa = |name: [u8; 4]| move |dsdt: &[u8]| dsdt.windows(4).any(|bytes| bytes == name);
        // PNP0303 and PNP0F13 (ACPI 6.5, 19.3.4).
        let keyboard = eisa([0x41, 0xd0, 0x03, 0x03]);
        let mouse = eisa([0x41, 0xd0, 0x0f, 0x13]);
        for announced in [false, true] {
            let machine = Machine {
                keyboard: announced,
                ..machine(1)
            };
            let dsdt = dsdt::build(&machine);
            assert_eq!((keyboard(&dsdt), mouse(&dsdt)), (announced, announced));
            // IAPC_BOOT_ARCH (ACPI 6.5, 5.2.9.3).
            let flags = fadt::build(&machine, 0, 0)[109];
            assert_eq!(flags & 1 << 1 != 0, announced);
            assert_eq!(flags & 1 << 2, 1 << 2, "no VGA in any case");
        }
    }

    /// What firmware does: adds the address of the tables to every pointer, and sums again.
    #[test]
    fn tables_can_be_moved() {
        let mut moved = movable(&machine(2));
        let place = 0x7fe0_0000;
        for pointer in &moved.pointers {
            let at = pointer.offset as usize;
            let width = usize::from(pointer.width);
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(&moved.tables[at..at + width]);
            let address = u64::from_le_bytes(bytes) + u64::from(place);
            moved.tables[at..at + width].copy_from_slice(&address.to_le_bytes()[..width]);
        }
        for sum in &moved.checksums {
            let range = sum.start as usize..(sum.start + sum.length) as usize;
            moved.tables[sum.offset as usize] = checksum(&moved.tables[range]);
        }
        assert_eq!(moved.tables, assemble(&machine(2), place).tables);
        assert_eq!((moved.rsdp[8], moved.rsdp[32]), (0, 0));
    }
}
