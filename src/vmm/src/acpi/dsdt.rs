//! DSDT: the PCI host bridge with its windows, and what sits on the LPC bus.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use lodge_devices::acpi_pm::{PM_BLOCK_LENGTH, SLP_TYP_S5};
use lodge_devices::hotplug::{HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH};

use super::{
    Machine, OEM_ID, OEM_REVISION, OEM_TABLE_ID, Raw, hotplug, pvpanic, serialize, vmgenid,
};
use crate::layout::{GENERATION_ID, KEYBOARD, LAST_BUS, MOUSE, PCI_IO_BASE, PIRQ_A_GSI, pirq_of};
use crate::memory::PAGE;

const HEADER: u32 = 36;
const REVISION: u8 = 2;
/// Devices on the bus, beside the host bridge.
const DEVICES: std::ops::RangeInclusive<u8> = 1..=31;

/// The table.
pub fn build(machine: &Machine) -> Vec<u8> {
    let mut dsdt = Sdt::new(
        *b"DSDT",
        HEADER,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    dsdt.append_slice(&soft_off());
    dsdt.append_slice(&system_bus(machine));
    dsdt.append_slice(&vmgenid::event());
    dsdt.append_slice(&hotplug::event());
    dsdt.update_checksum();
    dsdt.as_slice().to_vec()
}

/// `_S5`: what to write to PM1 control to switch the machine off.
fn soft_off() -> Vec<u8> {
    let package = Package::new(vec![&SLP_TYP_S5, &SLP_TYP_S5, &0_u8, &0_u8]);
    serialize(&Name::new("_S5_".into(), &package))
}

fn system_bus(machine: &Machine) -> Vec<u8> {
    let host_bridge = Raw(host_bridge(machine));
    let board = Raw(board_resources(machine));
    let serial = Raw(serial_port());
    let clock = Raw(clock());
    let generation = Raw(vmgenid::device());
    let panic = Raw(pvpanic::device());
    let (keyboard, mouse) = (Raw(keyboard()), Raw(mouse()));
    let mut devices: Vec<&dyn Aml> =
        vec![&host_bridge, &board, &serial, &clock, &generation, &panic];
    if machine.keyboard {
        devices.extend([&keyboard as &dyn Aml, &mouse]);
    }
    serialize(&Scope::new("_SB_".into(), devices))
}

fn host_bridge(machine: &Machine) -> Vec<u8> {
    let buses = AddressSpace::new_bus_number(0, u16::from(LAST_BUS));
    let config_ports = IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = AddressSpace::new_io(0_u16, 0xcf7, None);
    let high_ports = AddressSpace::new_io(PCI_IO_BASE, 0xffff, None);
    let low_memory: Vec<_> = machine
        .low_windows
        .iter()
        .map(|window| {
            let (first, last) = (window.start as u32, (window.end - 1) as u32);
            AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None)
        })
        .collect();
    let high = &machine.high_window;
    let high_memory = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        high.start,
        high.end.saturating_sub(1),
        None,
    );
    let mut windows: Vec<&dyn Aml> = vec![&buses, &config_ports, &low_ports, &high_ports];
    windows.extend(low_memory.iter().map(|window| window as &dyn Aml));
    if !high.is_empty() {
        windows.push(&high_memory);
    }
    let wires = Raw(wires());
    let slots = Raw(hotplug::slots());
    serialize(&Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_SEG".into(), &0_u8),
            &Name::new("_BBN".into(), &0_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(windows)),
            &Name::new("_PRT".into(), &wires),
            &slots,
        ],
    ))
}

/// Which input of the I/O APIC pin A of each device is at, whatever the function (ACPI 6.5, 6.2.13).
fn wires() -> Vec<u8> {
    let pins: Vec<_> = DEVICES
        .map(|device| {
            (
                u32::from(device) << 16 | 0xffff,
                PIRQ_A_GSI + pirq_of(device),
            )
        })
        .collect();
    let entries: Vec<_> = pins
        .iter()
        .map(|(device, input)| Package::new(vec![device, &0_u8, &0_u8, input]))
        .collect();
    let entries = entries.iter().map(|entry| entry as &dyn Aml);
    serialize(&Package::new(entries.collect()))
}

/// Addresses of the board itself, which nothing else may be given.
fn board_resources(machine: &Machine) -> Vec<u8> {
    let pm = IO::new(machine.pm_base, machine.pm_base, 1, PM_BLOCK_LENGTH as u8);
    let ecam = machine.ecam.as_ref().map(|ecam| {
        // The host bridge decodes it below 4 GiB only, see `Machine::ecam`.
        Memory32Fixed::new(true, ecam.start as u32, (ecam.end - ecam.start) as u32)
    });
    let hotplug = HOTPLUG_PORTS as u16;
    let hotplug = IO::new(hotplug, hotplug, 1, HOTPLUG_PORTS_LENGTH as u8);
    let generation = Memory32Fixed::new(false, GENERATION_ID as u32, PAGE as u32);
    let mut resources: Vec<&dyn Aml> = vec![&generation];
    if let Some(ecam) = &ecam {
        resources.push(ecam);
    }
    resources.extend([&pm as &dyn Aml, &hotplug]);
    serialize(&Device::new(
        Path::new("MBRD"),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
        ],
    ))
}

fn serial_port() -> Vec<u8> {
    let ports = IO::new(0x3f8, 0x3f8, 1, 8);
    let irq = Interrupt::new(true, true, false, false, 4);
    serialize(&Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &irq])),
        ],
    ))
}

fn clock() -> Vec<u8> {
    let ports = IO::new(0x70, 0x70, 1, 2);
    let irq = Interrupt::new(true, true, false, false, 8);
    serialize(&Device::new(
        "RTC0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &irq])),
        ],
    ))
}

/// The keyboard, with the controller's ports.
fn keyboard() -> Vec<u8> {
    let data = IO::new(0x60, 0x60, 1, 1);
    let command = IO::new(0x64, 0x64, 1, 1);
    let irq = Interrupt::new(true, true, false, false, KEYBOARD.into());
    serialize(&Device::new(
        "KBD0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0303")),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&data, &command, &irq]),
            ),
        ],
    ))
}

/// The mouse on the controller's second port.
fn mouse() -> Vec<u8> {
    let irq = Interrupt::new(true, true, false, false, MOUSE.into());
    serialize(&Device::new(
        "MOU0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0F13")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&irq])),
        ],
    ))
}
