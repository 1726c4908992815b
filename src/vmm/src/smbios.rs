//! SMBIOS: who made the machine, and which one it is. With a 64-bit entry point (3.0) where we put it ourselves, with a 32-bit
//! one (2.8) for firmware, which every firmware knows how to move.

use uuid::Uuid;

use crate::layout::{SMBIOS_BASE, SMBIOS_END};

const ENTRY_LENGTH: usize = 24;
/// Tables follow the entry point at the next 16-byte border.
const TABLES_OFFSET: usize = 32;

const MANUFACTURER: &str = "Lodge";
const PRODUCT: &str = "Lodge Virtual Machine";

/// The entry point and its structures as they belong at [`SMBIOS_BASE`].
/// `None` when they do not fit, which no name is long enough for.
pub fn build(id: Uuid) -> Option<Vec<u8>> {
    let tables = structures(id).concat();
    let address = SMBIOS_BASE + TABLES_OFFSET as u64;
    let mut blob = entry_point(address, u32::try_from(tables.len()).ok()?);
    blob.resize(TABLES_OFFSET, 0);
    blob.extend(tables);
    (SMBIOS_BASE + blob.len() as u64 <= SMBIOS_END).then_some(blob)
}

/// Entry point and structures as firmware fetches them. It puts them where it likes, sets the address in the entry
/// point and sums it again.
pub fn for_firmware(id: Uuid) -> (Vec<u8>, Vec<u8>) {
    let structures = structures(id);
    let largest = structures.iter().map(Vec::len).max().unwrap_or(0);
    let tables = structures.concat();
    let mut entry = b"_SM_".to_vec();
    entry.extend([0, 31, 2, 8]);
    entry.extend((largest as u16).to_le_bytes());
    entry.extend([0; 6]);
    entry.extend(b"_DMI_");
    entry.push(0);
    entry.extend((tables.len() as u16).to_le_bytes());
    entry.extend([0; 4]);
    entry.extend((structures.len() as u16).to_le_bytes());
    entry.push(0x28);
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    entry[0x15] = sum(&entry[0x10..]).wrapping_neg();
    entry[4] = sum(&entry).wrapping_neg();
    (entry, tables)
}

fn structures(id: Uuid) -> Vec<Vec<u8>> {
    let serial = id.to_string();
    vec![
        firmware(),
        system(id, &serial),
        chassis(&serial),
        structure(127, 4, &[], &[]),
    ]
}

fn entry_point(tables: u64, length: u32) -> Vec<u8> {
    let mut entry = Vec::with_capacity(ENTRY_LENGTH);
    entry.extend(b"_SM3_");
    entry.extend([0, ENTRY_LENGTH as u8, 3, 0, 0, 1, 0]);
    entry.extend(length.to_le_bytes());
    entry.extend(tables.to_le_bytes());
    let sum = entry.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    entry[5] = sum.wrapping_neg();
    entry
}

/// Type 0. Says that this is a virtual machine.
fn firmware() -> Vec<u8> {
    let mut body = vec![1, 2, 0, 0, 3, 0];
    body.extend((1_u64 << 3).to_le_bytes()); // characteristics: not supported
    body.extend([0, 1 << 4]); // extension bytes: virtual machine
    body.extend([0, 0, 0xff, 0xff]);
    structure(
        0,
        0,
        &body,
        &[MANUFACTURER, env!("CARGO_PKG_VERSION"), "01/01/2026"],
    )
}

/// Type 1.
fn system(id: Uuid, serial: &str) -> Vec<u8> {
    let mut body = vec![1, 2, 3, 4];
    // The first three fields are little-endian (SMBIOS 3.0, 7.2.1).
    body.extend(id.to_bytes_le());
    body.extend([6, 0, 0]); // woken by the power switch; no SKU, no family
    let strings = [MANUFACTURER, PRODUCT, env!("CARGO_PKG_VERSION"), serial];
    structure(1, 1, &body, &strings)
}

/// Type 3. Some systems want one to believe the rest.
fn chassis(serial: &str) -> Vec<u8> {
    let mut body = vec![1, 1, 0, 2, 0];
    body.extend([3, 3, 3, 2]); // boot-up, power and thermal state safe; security unknown
    body.extend([0; 4]);
    body.extend([0, 0, 0, 0]);
    structure(3, 3, &body, &[MANUFACTURER, serial])
}

fn structure(kind: u8, handle: u16, body: &[u8], strings: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind, 4 + body.len() as u8];
    bytes.extend(handle.to_le_bytes());
    bytes.extend(body);
    for string in strings {
        bytes.extend(string.as_bytes());
        bytes.push(0);
    }
    if strings.is_empty() {
        bytes.push(0);
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_point_sums_to_zero_and_the_identity_is_there() {
        let id = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let blob = build(id).unwrap();
        let sum = blob[..ENTRY_LENGTH]
            .iter()
            .fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        assert_eq!(sum, 0);
        let little = id.to_bytes_le();
        assert!(blob.windows(16).any(|window| window == little));
    }

    #[test]
    fn the_entry_point_for_firmware_sums_to_zero_twice() {
        let (entry, tables) = for_firmware(Uuid::nil());
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        assert_eq!((entry.len(), sum(&entry), sum(&entry[0x10..])), (31, 0, 0));
        assert_eq!(
            usize::from(entry[0x16]) | usize::from(entry[0x17]) << 8,
            tables.len()
        );
    }

    #[test]
    fn structures_follow_one_another_to_the_end() {
        let blob = build(Uuid::nil()).unwrap();
        let mut rest = &blob[TABLES_OFFSET..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            kinds.push(rest[0]);
            let strings = &rest[usize::from(rest[1])..];
            let end = strings.windows(2).position(|pair| pair == [0, 0]).unwrap() + 2;
            rest = &strings[end..];
        }
        assert_eq!(kinds, [0, 1, 3, 127]);
    }
}
