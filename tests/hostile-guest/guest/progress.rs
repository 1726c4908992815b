//! How far the guest has got, in battery-backed memory: that survives a reset.

use crate::io::{Width, raw_input, raw_output};

/// These cells attacks leave alone.
pub const CELLS: core::ops::RangeInclusive<u8> = 0x60..=0x63;
const NEXT: u8 = 0x60;
const RUNNING: u8 = 0x61;
const FAILURES: u8 = 0x62;
const MAGIC: u8 = 0x63;

/// Where it goes on.
pub struct Stage {
    /// Nothing has been done yet.
    pub fresh: bool,
    pub next: usize,
    /// An attack that reset the machine.
    pub interrupted: Option<usize>,
    pub failures: u8,
}

fn read(cell: u8) -> u8 {
    raw_output(0x70, Width::Byte, cell.into());
    raw_input(0x71, Width::Byte) as u8
}

fn write(cell: u8, value: u8) {
    raw_output(0x70, Width::Byte, cell.into());
    raw_output(0x71, Width::Byte, value.into());
}

pub fn resume() -> Stage {
    if read(MAGIC) != 0xa5 {
        return Stage {
            fresh: true,
            next: 0,
            interrupted: None,
            failures: 0,
        };
    }
    let next = usize::from(read(NEXT));
    let interrupted = read(RUNNING) == 1;
    Stage {
        fresh: false,
        next: next + usize::from(interrupted),
        interrupted: interrupted.then_some(next),
        failures: read(FAILURES),
    }
}

pub fn begin(attack: usize, failures: u8) {
    note(attack, 1, failures);
}

pub fn end(next: usize, failures: u8) {
    note(next, 0, failures);
}

fn note(attack: usize, running: u8, failures: u8) {
    write(NEXT, attack as u8);
    write(RUNNING, running);
    write(FAILURES, failures);
    write(MAGIC, 0xa5);
}
