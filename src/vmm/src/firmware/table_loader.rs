//! The script by which firmware places tables: `etc/table-loader` (QEMU, `hw/acpi/bios-linker-loader.c`; edk2,
//! `OvmfPkg/Include/IndustryStandard/QemuLoader.h`). Commands of 128 bytes, little endian.

use crate::acpi::{ALIGNMENT, Checksum, Pointer, RSDP_CHECKSUMS, RSDP_POINTERS, Tables};

/// The tables' file.
pub const TABLES: &str = "etc/acpi/tables";
/// The root pointer's file.
pub const RSDP: &str = "etc/acpi/rsdp";
/// The script's file.
pub const SCRIPT: &str = "etc/table-loader";

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

const ANYWHERE: u8 = 1;
/// Where a BIOS is scanned for the root pointer.
const SCANNED: u8 = 2;
const RSDP_ALIGNMENT: u32 = 16;

const COMMAND: usize = 128;
const NAME: usize = 56;

/// The script for `tables`, which were assembled for address 0.
pub fn script(tables: &Tables) -> Vec<u8> {
    let mut script = Script { bytes: Vec::new() };
    script.allocate(RSDP, RSDP_ALIGNMENT, SCANNED);
    script.allocate(TABLES, ALIGNMENT as u32, ANYWHERE);
    script.relocate(TABLES, &tables.pointers, &tables.checksums);
    script.relocate(RSDP, &RSDP_POINTERS, &RSDP_CHECKSUMS);
    script.bytes
}

struct Script {
    bytes: Vec<u8>,
}

impl Script {
    fn command(&mut self, kind: u32, parts: &[&[u8]]) {
        let end = self.bytes.len() + COMMAND;
        self.bytes.extend(kind.to_le_bytes());
        for part in parts {
            self.bytes.extend(*part);
        }
        self.bytes.resize(end, 0);
    }

    fn allocate(&mut self, file: &str, alignment: u32, zone: u8) {
        self.command(ALLOCATE, &[&name(file), &alignment.to_le_bytes(), &[zone]]);
    }

    /// Adds the address of the tables to every pointer in `file`, then sums again.
    fn relocate(&mut self, file: &str, pointers: &[Pointer], checksums: &[Checksum]) {
        for pointer in pointers {
            let offset = pointer.offset.to_le_bytes();
            self.command(
                ADD_POINTER,
                &[&name(file), &name(TABLES), &offset, &[pointer.width]],
            );
        }
        for sum in checksums {
            let numbers = [sum.offset, sum.start, sum.length].map(u32::to_le_bytes);
            self.command(ADD_CHECKSUM, &[&name(file), &numbers.concat()]);
        }
    }
}

fn name(file: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    bytes[..file.len()].copy_from_slice(file.as_bytes());
    bytes
}
