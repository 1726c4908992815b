//! What firmware is told of the machine, by fw_cfg and by battery-backed memory.

use lodge_devices::GuestMemory;
use lodge_devices::fw_cfg::{FwCfg, Items, key};
use lodge_devices::ramfb::{RAMFB_FILE, RamfbFile};
use uuid::Uuid;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::option_rom::OptionRom;
use super::table_loader::{self, RSDP, SCRIPT, TABLES};
use crate::acpi::{self, Tables};
use crate::boot::memory_map::{RESERVED, USABLE};
use crate::layout::{
    ABOVE_1M, CONVENTIONAL_END, GENERATION_ID, HIGH_MEMORY_BASE, KVM_PRIVATE_BASE,
};
use crate::machine::Chipset;
use crate::memory::PAGE;
use crate::smbios;

/// Tables depend on where firmware has put the windows of PCI, so their length varies; their file's must not. What a
/// window more takes is far less than this.
const SLACK: usize = 1024;

/// The first serial port, for SeaBIOS to show its text on, beside the screen.
const SERIAL_PORT: u16 = 0x3f8;

/// What the items are made from.
pub struct Configuration {
    /// SMBIOS UUID.
    pub id: Uuid,
    /// The file `bootorder`.
    pub boot_order: Vec<u8>,
    /// Sets the screen up.
    pub screen: Option<RamfbFile>,
    /// What a BIOS runs for screen and network.
    pub option_roms: Vec<(OptionRom, Vec<u8>)>,
    /// Describes the machine as it is at the moment.
    pub chipset: Chipset,
}

/// The device with all items.
pub fn fw_cfg(memory: &GuestMemory, configuration: Configuration) -> FwCfg {
    let mut items = Items::new();
    let ids = &configuration.chipset.apic_ids;
    // 64 at most. SeaBIOS takes the second for one more than the highest APIC ID.
    let vcpus = (ids.len() as u16).to_le_bytes();
    let limit = ids.iter().max().map_or(0, |&id| u16::from(id) + 1);
    items.set(key::UUID, configuration.id.as_bytes());
    items.set(key::CPUS, &vcpus);
    items.set(key::MAX_CPUS, &limit.to_le_bytes());
    items.set(key::BOOT_MENU, &0_u16.to_le_bytes());
    items.set(key::TIMER_OVERRIDE, &1_u32.to_le_bytes());
    items.add_file("bootorder", configuration.boot_order);
    items.add_file("etc/e820", e820(memory));
    items.add_file("etc/sercon-port", SERIAL_PORT.to_le_bytes().to_vec());
    if let Some(screen) = configuration.screen {
        items.add_file(RAMFB_FILE, screen);
    }
    for (rom, bytes) in configuration.option_roms {
        items.add_file(rom.file_name(), bytes);
    }
    let (anchor, structures) = smbios::for_firmware(configuration.id);
    items.add_file("etc/smbios/smbios-anchor", anchor);
    items.add_file("etc/smbios/smbios-tables", structures);
    add_acpi(&mut items, &configuration.chipset);
    FwCfg::new(memory.clone(), items)
}

fn add_acpi(items: &mut Items, chipset: &Chipset) {
    let file = |part: fn(Tables) -> Vec<u8>| {
        let chipset = chipset.clone();
        let length = part(acpi::movable(&chipset.describe())).len() + SLACK;
        let length = length.next_multiple_of(PAGE as usize);
        move || {
            let mut bytes = part(acpi::movable(&chipset.describe()));
            bytes.resize(length, 0);
            bytes
        }
    };
    items.add_file(TABLES, file(|tables| tables.tables));
    items.add_file(SCRIPT, file(|tables| table_loader::script(&tables)));
    let chipset = chipset.clone();
    items.add_file(RSDP, move || acpi::movable(&chipset.describe()).rsdp);
}

/// `etc/e820`: the memory there is, the generation id with what KVM keeps for itself. Firmware adds its own reservations.
fn e820(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |base: u64, length: u64, kind: u32| {
        bytes.extend(base.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
    };
    for region in memory.iter() {
        add(region.start_addr().0, region.len(), USABLE);
    }
    add(
        GENERATION_ID,
        KVM_PRIVATE_BASE + 4 * PAGE - GENERATION_ID,
        RESERVED,
    );
    bytes
}

/// Battery-backed memory as PC firmware reads it: index and value.
pub fn cmos_bytes(memory: &GuestMemory, vcpus: u8) -> Vec<(u8, u8)> {
    const UNIT: u64 = 64 << 10;
    let size = |base: u64| {
        let mut regions = memory.iter();
        let region = regions.find(|region| region.start_addr().0 == base);
        region.map_or(0, GuestMemoryRegion::len)
    };
    let (low, high) = (size(0), size(HIGH_MEMORY_BASE));
    let conventional = CONVENTIONAL_END.next_multiple_of(UNIT) >> 10;
    let extended = (low.saturating_sub(ABOVE_1M) >> 10).min(0xffff);
    let above_16m = (low.saturating_sub(16 << 20) / UNIT).min(0xffff);
    let above_4g = (high / UNIT).min(0xff_ffff);
    let byte = |value: u64, number: u32| (value >> (8 * number)) as u8;
    vec![
        // Equipment: a numeric coprocessor and a pointing device port.
        (0x14, 0x06),
        (0x15, byte(conventional, 0)),
        (0x16, byte(conventional, 1)),
        (0x17, byte(extended, 0)),
        (0x18, byte(extended, 1)),
        (0x30, byte(extended, 0)),
        (0x31, byte(extended, 1)),
        (0x34, byte(above_16m, 0)),
        (0x35, byte(above_16m, 1)),
        (0x5b, byte(above_4g, 0)),
        (0x5c, byte(above_4g, 1)),
        (0x5d, byte(above_4g, 2)),
        (0x5f, vcpus.saturating_sub(1)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    fn cmos_word(bytes: &[(u8, u8)], low: u8) -> u16 {
        let get = |index| bytes.iter().find(|(at, _)| *at == index).unwrap().1;
        u16::from_le_bytes([get(low), get(low + 1)])
    }

    #[test]
    fn memory_sizes_are_in_the_units_of_old() {
        let bytes = cmos_bytes(&memory::reserve(256 << 20).unwrap(), 2);
        assert_eq!(cmos_word(&bytes, 0x15), 640);
        assert_eq!(cmos_word(&bytes, 0x17), 0xffff);
        assert_eq!(cmos_word(&bytes, 0x34), 240 * 16);
        assert_eq!(cmos_word(&bytes, 0x5b), 0);
        assert!(bytes.contains(&(0x5f, 1)));
        let bytes = cmos_bytes(&memory::reserve(5 << 30).unwrap(), 1);
        // Low memory ends at 2.75 GiB; the other 2.25 GiB are above 4.
        assert_eq!(cmos_word(&bytes, 0x34), ((2816 - 16) * 16) as u16);
        assert_eq!(cmos_word(&bytes, 0x5b), (2304 * 16) as u16);
    }

    #[test]
    fn the_memory_map_has_twenty_bytes_for_each_range() {
        let bytes = e820(&memory::reserve(5 << 30).unwrap());
        assert_eq!(bytes.len(), 3 * 20);
        assert_eq!(bytes[20..28], (1_u64 << 32).to_le_bytes());
        assert_eq!(bytes[16..20], USABLE.to_le_bytes());
        assert_eq!(bytes[56..60], RESERVED.to_le_bytes());
    }
}
