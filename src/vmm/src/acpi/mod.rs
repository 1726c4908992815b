//! The machine's description for the guest: ACPI 6.5 tables in a blob at [`ACPI_BASE`].

mod dsdt;
mod fadt;
mod madt;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use crate::layout::{ACPI_BASE, ACPI_END, ECAM_BASE, LAST_BUS};

const OEM_ID: [u8; 6] = *b"LODGE ";
const OEM_TABLE_ID: [u8; 8] = *b"LODGEVMM";
const OEM_REVISION: u32 = 1;

/// The FACS must be aligned so (ACPI 6.5, 5.2.10); everything else gets 8.
const FACS_ALIGNMENT: usize = 64;

/// What the tables depend on.
pub struct Machine {
    /// Number of vCPUs; their APIC IDs count from 0.
    pub vcpus: u8,
    /// Window for 64-bit PCI memory BARs.
    pub high_window: Range<u64>,
}

/// All tables as they belong at [`ACPI_BASE`]. The RSDP comes first.
///
/// `None` when they do not fit below [`ACPI_END`], which 64 vCPUs are far from.
pub fn build(machine: &Machine) -> Option<Vec<u8>> {
    let mut blob = Blob {
        bytes: vec![0; Rsdp::len()],
    };
    let dsdt = blob.append(&dsdt::build(machine), 8);
    let facs = blob.append(&serialize(&FACS::new()), FACS_ALIGNMENT);
    let tables = [
        blob.append(
            &fadt::build(u32::try_from(dsdt).ok()?, u32::try_from(facs).ok()?),
            8,
        ),
        blob.append(&madt::build(machine.vcpus), 8),
        blob.append(&mcfg(), 8),
    ];
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in tables {
        xsdt.add_entry(table);
    }
    let xsdt = blob.append(&serialize(&xsdt), 8);
    let rsdp = serialize(&Rsdp::new(OEM_ID, xsdt));
    blob.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    let fits = ACPI_BASE + blob.bytes.len() as u64 <= ACPI_END;
    fits.then_some(blob.bytes)
}

fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM_BASE, 0, 0, LAST_BUS);
    serialize(&mcfg)
}

fn serialize(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

struct Blob {
    bytes: Vec<u8>,
}

impl Blob {
    /// Returns the guest-physical address of the table.
    fn append(&mut self, table: &[u8], alignment: usize) -> u64 {
        let at = self.bytes.len().next_multiple_of(alignment);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(table);
        ACPI_BASE + at as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let blob = build(&Machine {
                vcpus,
                high_window: 1 << 35..1 << 36,
            })
            .unwrap();
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
        }
    }
}
