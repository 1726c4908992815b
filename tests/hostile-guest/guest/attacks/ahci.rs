//! The SATA controller (AHCI 1.3.1): registers in any order, command lists and tables where none can be.

use super::bars::touch;
use crate::World;
use crate::io::{Width, load, store};
use crate::memory::{ARENA, target};
use crate::pci::Function;
use crate::random::Random;

const PORTS: u64 = 6;
/// PxCMD: start, and receive FISes.
const RUN: u64 = 0x11;

/// Whether a register says where structures are that the controller writes to: those are not set at random.
pub fn places_structures(function: &Function, offset: u64) -> bool {
    // An access of eight bytes before them reaches them.
    is_controller(function) && offset >= 0xf8 && (offset & 0x7f < 0x10 || offset & 0x7f >= 0x78)
}

fn is_controller(function: &Function) -> bool {
    (function.vendor, function.device) == (0x8086, 0x2922) && function.bar != 0
}

fn controller(world: &World) -> Option<Function> {
    world.functions.with_bar().find(is_controller)
}

fn port(function: &Function, number: u64) -> u64 {
    function.bar + 0x100 + 0x80 * number
}

pub fn registers(world: &mut World) {
    let Some(function) = controller(world) else {
        return;
    };
    store(function.bar + 4, Width::Double, 0x8000_0002);
    for _ in 0..world.rounds * 800 {
        let offset = world.random.below(0x100 + 0x80 * 8);
        touch(world, &function, offset);
    }
    ends_well(world, &function);
}

pub fn lists(world: &mut World) {
    let Some(function) = controller(world) else {
        return;
    };
    for _ in 0..world.rounds * 5 {
        for number in 0..PORTS {
            let port = port(&function, number);
            stop(port);
            let (list, received) = match world.random.below(4) {
                0 => (target(&mut world.random, world.memory_end), ARENA + 0x1000),
                1 => (ARENA, target(&mut world.random, world.memory_end)),
                _ => (ARENA, ARENA + 0x1000),
            };
            fill(&mut world.random, world.memory_end);
            place(port, list, received);
            store(port + 0x30, Width::Double, u64::from(u32::MAX));
            store(port + 0x18, Width::Double, RUN | 6);
            store(
                port + 0x38,
                Width::Double,
                world.random.pick(&[1, 3, 0x8000_0000, 0xffff_ffff]),
            );
            for _ in 0..8 {
                load(port + 0x20, Width::Double);
            }
            // Registers change while commands are under way.
            store(port + 0x2c, Width::Double, world.random.below(0x200));
            store(port + 0x18, Width::Double, world.random.next() & 0xffff);
        }
    }
    ends_well(world, &function);
}

/// Command headers and one table, with every length wrong in turn.
fn fill(random: &mut Random, memory_end: u64) {
    for slot in 0..32 {
        let header = ARENA + 32 * slot;
        let prdt = random.pick(&[0, 1, 8, 0xffff]);
        store(header, Width::Double, prdt << 16 | random.below(0x800));
        let table = match random.below(4) {
            0 => target(random, memory_end),
            _ => ARENA + 0x2000,
        };
        store(header + 8, Width::Quad, table & !0x7f);
    }
    let table = ARENA + 0x2000;
    let command = random.pick(&[
        0x25, 0x35, 0x60, 0x61, 0xa0, 0xa1, 0xec, 0xea, 0x06, 0xc8, 0xca, 0xef, 0x2f, 0xff,
    ]);
    store(
        table,
        Width::Double,
        0x27 | random.pick(&[0x8000, 0]) | command << 16 | random.below(0x100) << 24,
    );
    store(table + 4, Width::Quad, random.value());
    store(table + 12, Width::Quad, random.value());
    let packet = random.pick(&[
        0x00, 0x03, 0x12, 0x1b, 0x25, 0x28, 0xa8, 0x43, 0x46, 0x4a, 0x5a, 0xbe, 0xff,
    ]);
    store(table + 0x40, Width::Quad, packet | random.next() << 8);
    store(table + 0x48, Width::Quad, random.value());
    for entry in 0..8 {
        let at = table + 0x80 + 16 * entry;
        store(at, Width::Quad, target(random, memory_end));
        store(at + 12, Width::Double, random.value() & 0xffff_ffff);
    }
}

fn stop(port: u64) {
    store(port + 0x18, Width::Double, 0);
    for _ in 0..200 {
        if load(port + 0x18, Width::Double) & 0xc000 == 0 {
            return;
        }
    }
}

fn place(port: u64, list: u64, received: u64) {
    store(port, Width::Double, list & 0xffff_fc00);
    store(port + 4, Width::Double, list >> 32);
    store(port + 8, Width::Double, received & 0xffff_ff00);
    store(port + 12, Width::Double, received >> 32);
}

/// A reset of the controller ends, and takes everything back.
fn ends_well(world: &mut World, function: &Function) {
    store(function.bar + 4, Width::Double, 1);
    for _ in 0..100_000 {
        if load(function.bar + 4, Width::Double) & 1 == 0 {
            return;
        }
    }
    world.bad(format_args!("the SATA controller's reset does not end"));
}
