//! The Intel network card (82574 datasheet): registers in any order, rings where none can be, descriptors of all kinds
//! with packets anywhere.

use super::bars::touch;
use crate::World;
use crate::io::{Width, load, store};
use crate::memory::{ARENA, clear, target};
use crate::pci::Function;
use crate::random::Random;

/// Registers (10.2).
const CTRL: u64 = 0x0000;
const IMC: u64 = 0x00d8;
const RCTL: u64 = 0x0100;
const TCTL: u64 = 0x0400;
const RFCTL: u64 = 0x5008;
const PSRCTL: u64 = 0x2170;
/// The rings: base, length, head, tail.
const RINGS: [u64; 4] = [0x2800, 0x2900, 0x3800, 0x3900];
const LENGTH: u64 = 0x08;
const HEAD: u64 = 0x10;
const TAIL: u64 = 0x18;

const RESET: u64 = 1 << 26;
const ENABLE: u64 = 1 << 1;
/// Receive everything.
const RECEIVE: u64 = ENABLE | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 15;

/// Descriptors of a ring, and where rings and honest packets are.
const ENTRIES: u64 = 64;
const PACKETS: u64 = ARENA + 0x1_0000;

/// Whether a register says where structures are that the card writes to: those are not set at random.
pub fn places_structures(function: &Function, offset: u64) -> bool {
    // An access of eight bytes before them reaches them.
    is_card(function)
        && RINGS
            .iter()
            .any(|ring| (ring.saturating_sub(7)..ring + LENGTH + 4).contains(&offset))
}

fn is_card(function: &Function) -> bool {
    (function.vendor, function.device) == (0x8086, 0x10d3) && function.bar != 0
}

fn card(world: &World) -> Option<Function> {
    world.functions.with_bar().find(is_card)
}

pub fn registers(world: &mut World) {
    let Some(function) = card(world) else {
        return;
    };
    for _ in 0..world.rounds * 6 {
        start(&function);
        fill(&mut world.random, world.memory_end);
        for _ in 0..150 {
            let offset = match world.random.below(4) {
                0 => world.random.below(0x208),
                1 => world.random.pick(&RINGS) + HEAD + world.random.below(0x30),
                2 => 0x4000 + world.random.below(0x1c00),
                _ => world.random.below(function.length),
            };
            touch(world, &function, offset);
        }
    }
    ends_well(world, &function);
}

pub fn rings(world: &mut World) {
    let Some(function) = card(world) else {
        return;
    };
    for _ in 0..world.rounds * 12 {
        start(&function);
        fill(&mut world.random, world.memory_end);
        for (number, ring) in (0..).zip(RINGS) {
            let place = match world.random.below(3) {
                0 => target(&mut world.random, world.memory_end),
                _ => honest(number),
            };
            let length = world
                .random
                .pick(&[ENTRIES * 16, ENTRIES * 16, 0, 128, 0xf_ff80, 127]);
            set_ring(&function, ring, place, length);
        }
        let formats = world.random.next();
        store(function.bar + RFCTL, Width::Double, formats & 1 << 15);
        store(
            function.bar + PSRCTL,
            Width::Double,
            world.random.next() & 0xffff_ffff,
        );
        store(
            function.bar + RCTL,
            Width::Double,
            RECEIVE | formats & (1 << 10 | 3 << 16),
        );
        store(function.bar + TCTL, Width::Double, ENABLE);
        for _ in 0..16 {
            let ring = function.bar + world.random.pick(&RINGS);
            let register = world.random.pick(&[TAIL, TAIL, TAIL, HEAD, LENGTH]);
            let value = match world.random.below(4) {
                0 => world.random.value(),
                _ => world.random.below(ENTRIES),
            };
            store(ring + register, Width::Double, value);
        }
        if world.random.below(3) == 0 {
            store(
                function.bar + CTRL,
                Width::Double,
                world.random.pick(&[RESET, 1 << 31, 1 << 2]),
            );
        }
    }
    ends_well(world, &function);
}

fn honest(ring: u64) -> u64 {
    ARENA + ring * 0x1000
}

fn set_ring(function: &Function, ring: u64, place: u64, length: u64) {
    let ring = function.bar + ring;
    for (register, value) in [
        (0, place & 0xffff_fff0),
        (4, place >> 32),
        (LENGTH, length),
        (HEAD, 0),
        (TAIL, 0),
    ] {
        store(ring + register, Width::Double, value);
    }
}

/// Resets the card, and starts it with rings of empty descriptors.
fn start(function: &Function) {
    store(function.bar + IMC, Width::Double, 0xffff_ffff);
    store(function.bar + CTRL, Width::Double, RESET);
    for (number, ring) in (0..).zip(RINGS) {
        clear(honest(number), ENTRIES * 16);
        set_ring(function, ring, honest(number), ENTRIES * 16);
    }
    store(function.bar + TCTL, Width::Double, ENABLE);
}

/// Descriptors in all their forms, with every field wrong in turn.
fn fill(random: &mut Random, memory_end: u64) {
    for number in 0..4 {
        for descriptor in 0..ENTRIES {
            let at = honest(number) + 16 * descriptor;
            let address = match random.below(4) {
                // A context is no address, and buffers to be written to are above this program.
                0 if number >= 2 => random.value(),
                _ => target(random, memory_end),
            };
            let upper = match random.below(3) {
                0 => random.next(),
                _ => random.value() & 0xffff_ffff_0000_0000 | random.next() & 0xff0f_ffff,
            };
            store(at, Width::Quad, address);
            let form = random.pick(&[0, 1 << 29, 1 << 29 | 1 << 20]);
            // With header split, the second half is an address, too.
            let upper = if number < 2 {
                target(random, memory_end)
            } else {
                upper | form
            };
            store(at + 8, Width::Quad, upper);
        }
    }
}

/// After a reset the card sends a packet.
fn ends_well(world: &mut World, function: &Function) {
    start(function);
    clear(PACKETS, 64);
    let descriptor = honest(2);
    store(descriptor, Width::Quad, PACKETS);
    // The packet's last, and its end is to be told.
    store(descriptor + 8, Width::Quad, 60 | 9 << 24);
    store(function.bar + RINGS[2] + TAIL, Width::Double, 1);
    for _ in 0..100_000 {
        if load(descriptor + 12, Width::Byte) & 1 != 0 {
            return;
        }
        load(function.bar + CTRL, Width::Double);
    }
    world.bad(format_args!("the network card does not send"));
}
