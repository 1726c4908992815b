//! The ends of a boot.

use crate::io::{Width, raw_output};
use crate::pci;

/// Resets the machine, each time by another of the ways there are.
pub fn reset(turn: usize) -> ! {
    match turn % 3 {
        0 => {
            raw_output(0xcf9, Width::Byte, 0x02);
            raw_output(0xcf9, Width::Byte, 0x06);
        }
        1 => raw_output(0x64, Width::Byte, 0xfe),
        _ => {
            raw_output(0x92, Width::Byte, 0);
            raw_output(0x92, Width::Byte, 1);
        }
    }
    rest();
}

/// Powers the machine off (ACPI S5).
pub fn off() -> ! {
    pci::place_power_block();
    raw_output(pci::POWER_BLOCK + 4, Width::Word, 0x2000);
    rest();
}

/// Waits for what was asked for.
pub fn rest() -> ! {
    loop {
        // SAFETY: nothing wakes this processor but a reset.
        unsafe { core::arch::asm!("cli", "hlt") };
    }
}
