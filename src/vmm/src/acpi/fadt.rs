//! FADT: fixed hardware, the ICH9 power management block (ACPI 6.5, 5.2.9).

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use lodge_devices::acpi_pm::{GPE0, GPE0_LENGTH, PM_TIMER, PM1_CONTROL, PM1_EVENT};
use lodge_devices::cmos::CENTURY;

use super::{Machine, OEM_ID, OEM_REVISION, OEM_TABLE_ID, Pointer, serialize};
use crate::layout::SCI;

const RESET_PORT: u16 = 0xcf9;
/// Hard reset of system and processor.
const RESET_VALUE: u8 = 0x06;

/// Devices on the LPC bus that no table announces (serial port, clock).
const LEGACY_DEVICES: u16 = 1 << 0;
/// A keyboard controller at ports 0x60 and 0x64.
const KEYBOARD_CONTROLLER: u16 = 1 << 1;
const VGA_NOT_PRESENT: u16 = 1 << 2;

/// C2 and C3 do not exist.
const NO_C2: u16 = 0xffff;
const NO_C3: u16 = 0xffff;

/// `FIRMWARE_CTRL`, `DSDT` and `X_DSDT`.
pub const POINTERS: &[Pointer] = &[
    Pointer {
        offset: 36,
        width: 4,
    },
    Pointer {
        offset: 40,
        width: 4,
    },
    Pointer {
        offset: 140,
        width: 8,
    },
];

/// The table for a machine whose other tables are at two guest-physical addresses.
pub fn build(machine: &Machine, dsdt: u32, facs: u32) -> Vec<u8> {
    let port = |offset: u64| u64::from(machine.pm_base) + offset;
    let port32 = |offset: u64| (port(offset) as u32).into();
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.firmware_ctrl = facs.into();
    fadt.sci_int = u16::from(SCI).into();
    fadt.pm1a_evt_blk = port32(PM1_EVENT);
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = port32(PM1_CONTROL);
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = port32(PM_TIMER);
    fadt.pm_tmr_len = 4;
    fadt.gpe0_blk = port32(GPE0);
    fadt.gpe0_blk_len = GPE0_LENGTH as u8;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = CENTURY;
    // Also with a screen: what there is in that place is memory, and answers no VGA port.
    let mut boot_arch = LEGACY_DEVICES | VGA_NOT_PRESENT;
    if machine.keyboard {
        boot_arch |= KEYBOARD_CONTROLLER;
    }
    fadt.iapc_boot_arch = boot_arch.into();
    fadt.reset_reg = io(u64::from(RESET_PORT), 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.x_pm1a_evt_blk = io(port(PM1_EVENT), 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(port(PM1_CONTROL), 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io(port(PM_TIMER), 32, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = io(port(GPE0), (GPE0_LENGTH * 8) as u8, AccessSize::ByteAccess);
    serialize(&fadt.finalize())
}

fn io(port: u64, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, port)
}
