//! I/O ports: each in each width, across the borders of devices, by string instructions.

use crate::World;
use crate::io::{Width, input, input_string, output, output_string, raw_output};
use crate::memory::{ARENA, ARENA_LENGTH};
use crate::pci;
use crate::progress;
use crate::random::Random;

/// Ports of devices, with their neighbours. The configuration ports come last: they change everything else.
const DEVICES: &[(u16, u16)] = &[
    (0x00, 0x10),
    (0x20, 0x22),
    (0x40, 0x44),
    (0x5e, 0x6f),
    (0x80, 0x84),
    (0x8e, 0x94),
    (0xa0, 0xa2),
    (0xb0, 0xb4),
    (0x170, 0x178),
    (0x1f0, 0x1f8),
    (0x2f0, 0x300),
    (0x3b0, 0x3e0),
    (0x3f0, 0x402),
    (0x4d0, 0x4d2),
    (0x500, 0x520),
    (0x5f8, 0x690),
    (0xd7c, 0xd94),
    (0xfff0, 0xffff),
    (0xcf0, 0xd04),
];

/// `value` as it may be written without ending this boot, or the program: what resets or powers off the machine is
/// known to work, and firmware's DMA is not to go where this program lies.
fn tame(port: u16, value: u32) -> u32 {
    match port {
        // The keyboard controller's pulses and output port, the fast reset, the reset control register, the crash port, SLP_EN.
        0x60..=0x64 | 0x8f..=0x92 | 0xcf6..=0xcf9 | 0x502..=0x505 | 0x602..=0x605 => {
            value & 0x5050_5050
        }
        0x511..=0x517 => value | 0x0101_0101,
        0x518..=0x51b => ((ARENA + u64::from(value) % ARENA_LENGTH) as u32).swap_bytes(),
        // Where progress is kept.
        0x6d..=0x71 => value & 0x0f0f_0f0f,
        _ => value,
    }
}

pub fn every_port(world: &mut World) {
    for _ in 0..world.rounds {
        for &(first, end) in DEVICES {
            pci::place_power_block();
            for port in first..end {
                for &width in world.widths(Width::PORTS) {
                    let value = tame(port, world.random.value() as u32);
                    input(port, width);
                    output(port, width, value);
                    input(port, width);
                }
            }
        }
    }
}

/// Single ports on which devices keep a position, and the last ones of devices.
const BORDERS: &[u16] = &[
    0x60, 0x64, 0x71, 0x92, 0x3f8, 0x3fd, 0x3ff, 0x402, 0x505, 0x50f, 0x510, 0x511, 0x513, 0x514,
    0x517, 0x51b, 0x5ff, 0x600, 0x608, 0x62f, 0x67f, 0xcf7, 0xcf8, 0xcfb, 0xcfc, 0xcff, 0xd80,
    0xd88, 0xd8b,
];

pub fn strings(world: &mut World) {
    let mut buffer = [0; 4096];
    for _ in 0..world.rounds {
        for &port in BORDERS {
            for &width in world.widths(Width::PORTS) {
                for count in [0, 1, 33] {
                    input_string(port, width, &mut buffer, count);
                    fill(&mut buffer, port, &mut world.random);
                    // Long texts on the serial port are for the watcher to read.
                    if !(0x3f5..=0x3f8).contains(&port) {
                        output_string(port, width, &buffer, count.min(64));
                    }
                }
            }
        }
    }
}

fn fill(buffer: &mut [u8; 4096], port: u16, random: &mut Random) {
    for element in buffer[..256].chunks_exact_mut(4) {
        let value = tame(port, random.value() as u32);
        element.copy_from_slice(&value.to_le_bytes());
    }
}

pub fn clock_memory(world: &mut World) {
    for _ in 0..world.rounds {
        for index in 0..=255_u8 {
            if progress::CELLS.contains(&(index & 0x7f)) {
                continue;
            }
            for &width in world.widths(Width::PORTS) {
                raw_output(0x70, Width::Byte, index.into());
                input(0x71, width);
                output(0x71, width, world.random.value() as u32);
            }
        }
    }
}

/// Commands of the keyboard controller and its two devices, in any order. None of them resets.
pub fn keyboard(world: &mut World) {
    for _ in 0..world.rounds * 500 {
        let value = world.random.next() as u32 & 0xff;
        let pulse = value >= 0xf0 || value == 0xd1;
        match world.random.below(3) {
            0 if !pulse => output(0x64, Width::Byte, value),
            1 => output(0x60, Width::Byte, value),
            _ => drop(input(0x60 + 4 * (value as u16 & 1), Width::Byte)),
        }
    }
}
