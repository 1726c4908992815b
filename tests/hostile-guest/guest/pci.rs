//! The functions on bus 0, with addresses for their BARs where nobody has given any.

use crate::io::{Width, raw_input, raw_output};

/// Where the PM block is.
pub const POWER_BLOCK: u16 = 0x600;
/// Configuration space in memory.
pub const ECAM: u64 = 0xb000_0000;
/// BARs that have no address get one from here on.
const WINDOW: u64 = 0xc000_0000;
/// No BAR of these machines is longer.
const STEP: u64 = 0x2_0000;

pub const VENDOR: u8 = 0x00;
pub const COMMAND: u8 = 0x04;
pub const BAR0: u8 = 0x10;
/// Memory decoding and bus mastering, no wired interrupts.
pub const COMMAND_ON: u32 = 0x0406;

/// A function.
#[derive(Clone, Copy)]
pub struct Function {
    /// Device and function number.
    pub devfn: u8,
    pub vendor: u16,
    pub device: u16,
    /// Where its first memory BAR answers; 0 without one.
    pub bar: u64,
    /// The register of that BAR.
    pub bar_register: u8,
    /// How long that BAR is.
    pub length: u64,
    pub wide: bool,
    /// Register and place of a second one.
    pub second: Option<(u8, u64)>,
}

impl Function {
    pub fn read(&self, register: u8, width: Width) -> u32 {
        read(self.devfn, register, width)
    }

    pub fn write(&self, register: u8, width: Width, value: u32) {
        write(self.devfn, register, width, value);
    }

    /// Moves its BAR to `base`.
    pub fn move_to(&self, base: u64) {
        self.write(self.bar_register, Width::Double, base as u32);
        if self.wide {
            self.write(self.bar_register + 4, Width::Double, (base >> 32) as u32);
        }
    }

    /// Puts it where it was.
    pub fn put_back(&self) {
        self.write(COMMAND, Width::Word, 0);
        self.move_to(self.bar);
        if let Some((register, place)) = self.second {
            self.write(register, Width::Double, place as u32);
        }
        self.write(COMMAND, Width::Word, COMMAND_ON);
    }
}

/// All of them.
#[derive(Clone, Copy)]
pub struct Functions {
    list: [Option<Function>; 40],
}

impl Functions {
    pub fn iter(&self) -> impl Iterator<Item = Function> + use<> {
        self.list.into_iter().flatten()
    }

    /// Those with a BAR.
    pub fn with_bar(&self) -> impl Iterator<Item = Function> + use<> {
        self.iter().filter(|function| function.bar != 0)
    }
}

fn select(devfn: u8, register: u8) -> u16 {
    let address = 0x8000_0000 | u32::from(devfn) << 8 | u32::from(register & 0xfc);
    raw_output(0xcf8, Width::Double, address);
    0xcfc + u16::from(register & 3)
}

pub fn read(devfn: u8, register: u8, width: Width) -> u32 {
    raw_input(select(devfn, register), width)
}

pub fn write(devfn: u8, register: u8, width: Width, value: u32) {
    raw_output(select(devfn, register), width, value);
}

/// Finds all functions and turns them on.
pub fn set_up() -> Functions {
    place_power_block();
    // PCIEXBAR: 256 MiB.
    write(0, 0x64, Width::Double, 0);
    write(0, 0x60, Width::Double, ECAM as u32 | 1);
    let mut list = [None; 40];
    let mut free = WINDOW;
    let found = (0..=255_u8)
        .filter(|devfn| devfn & 7 == 0 || devfn >> 3 == 31)
        .filter_map(|devfn| find(devfn, &mut free));
    for (place, function) in list.iter_mut().zip(found) {
        *place = Some(function);
    }
    Functions { list }
}

/// Gives the PM block its ports (PMBASE and ACPI_CNTL of the LPC bridge).
pub fn place_power_block() {
    write(31 << 3, 0x40, Width::Double, u32::from(POWER_BLOCK) | 1);
    write(31 << 3, 0x44, Width::Byte, 0x80);
}

fn find(devfn: u8, free: &mut u64) -> Option<Function> {
    let id = read(devfn, VENDOR, Width::Double);
    if id == u32::MAX {
        return None;
    }
    let mut function = Function {
        devfn,
        vendor: id as u16,
        device: (id >> 16) as u16,
        bar: 0,
        bar_register: 0,
        length: 0,
        wide: false,
        second: None,
    };
    write(devfn, COMMAND, Width::Word, 0);
    let mut register = BAR0;
    while register < BAR0 + 24 {
        let before = read(devfn, register, Width::Double);
        write(devfn, register, Width::Double, u32::MAX);
        let mask = read(devfn, register, Width::Double);
        write(devfn, register, Width::Double, before);
        let wide = mask & 7 == 4;
        if mask != 0 && mask & 1 == 0 {
            let mut place = u64::from(before & !0xf);
            if wide {
                place |= u64::from(read(devfn, register + 4, Width::Double)) << 32;
            }
            let given = place != 0;
            if !given {
                place = *free;
                *free += STEP;
            }
            if function.bar == 0 {
                function.bar_register = register;
                function.length = u64::from(!(mask & !0xf)) + 1;
                function.wide = wide;
                function.bar = place;
                if !given {
                    function.move_to(place);
                }
            } else {
                function.second = Some((register, place));
                write(devfn, register, Width::Double, place as u32);
            }
        }
        register += if wide { 8 } else { 4 };
    }
    write(devfn, COMMAND, Width::Word, COMMAND_ON);
    Some(function)
}
