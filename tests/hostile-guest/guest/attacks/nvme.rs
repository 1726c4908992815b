//! The NVM Express controller (NVM Express 1.4): registers in any order, queues where none can be, commands of all kinds
//! with data anywhere.

use super::bars::touch;
use crate::World;
use crate::io::{Width, load, store};
use crate::memory::{ARENA, clear, target};
use crate::pci::Function;
use crate::random::Random;

/// Registers (3.1).
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
const ENABLED: u64 = 6 << 16 | 4 << 20 | 1;
const READY: u64 = 1;

/// Queues: the admin queue, and those for data that there may be.
const QUEUES: u64 = 5;
const ENTRIES: u64 = 16;
/// Where queues, lists of pages and honest data are.
const SUBMISSION: u64 = ARENA;
const COMPLETION: u64 = ARENA + 0x1_0000;
const LIST: u64 = ARENA + 0x2_0000;
const DATA: u64 = ARENA + 0x3_0000;

const IDENTIFY: u64 = 6;

/// Whether a register says where structures are that the controller writes to: those are not set at random.
pub fn places_structures(function: &Function, offset: u64) -> bool {
    // An access of eight bytes before them reaches them.
    is_controller(function) && (AQA - 7..ACQ + 8).contains(&offset)
}

fn is_controller(function: &Function) -> bool {
    (function.vendor, function.device) == (0x1b36, 0x0010) && function.bar != 0
}

fn controller(world: &World) -> Option<Function> {
    world.functions.with_bar().find(is_controller)
}

pub fn registers(world: &mut World) {
    let Some(function) = controller(world) else {
        return world.bad(format_args!("there is no NVMe controller"));
    };
    for _ in 0..world.rounds * 8 {
        enable(&function);
        for _ in 0..100 {
            let offset = match world.random.below(3) {
                0 => world.random.below(0x48),
                1 => DOORBELLS + world.random.below(0x48),
                _ => world.random.below(function.length),
            };
            touch(world, &function, offset);
        }
    }
    ends_well(world, &function);
}

pub fn commands(world: &mut World) {
    let Some(function) = controller(world) else {
        return world.bad(format_args!("there is no NVMe controller"));
    };
    for _ in 0..world.rounds * 12 {
        enable(&function);
        // Most queues are where they should be, or the controller would have nothing to do.
        for queue in 1..QUEUES {
            let hostile = world.random.below(4) == 0;
            let mut place = |honest| match hostile {
                true => target(&mut world.random, world.memory_end),
                false => honest,
            };
            let completion = place(COMPLETION + queue * 0x1000);
            let submission = place(SUBMISSION + queue * 0x1000);
            let size = world.random.pick(&[ENTRIES - 1, ENTRIES - 1, 0, 0xffff]);
            admin(
                &function,
                2 * queue - 2,
                5,
                completion,
                [queue | size << 16, queue << 16 | 3],
            );
            admin(
                &function,
                2 * queue - 1,
                1,
                submission,
                [queue | size << 16, queue << 16 | 1],
            );
        }
        fill_lists(&mut world.random, world.memory_end);
        for _ in 0..6 {
            for queue in 0..QUEUES {
                fill_queue(&mut world.random, world.memory_end, queue);
            }
            for _ in 0..QUEUES {
                let doorbell = world.random.below(2 * QUEUES + 2);
                let value = match world.random.below(4) {
                    0 => world.random.value(),
                    _ => world.random.below(ENTRIES),
                };
                store(
                    function.bar + DOORBELLS + 4 * doorbell,
                    Width::Double,
                    value,
                );
            }
            load(function.bar + CSTS, Width::Double);
        }
        if world.random.below(3) == 0 {
            // Shut down, or switched off, with commands under way.
            let control = world.random.pick(&[ENABLED | 0x4000, ENABLED | 0x8000, 0]);
            store(function.bar + CC, Width::Double, control);
        }
    }
    ends_well(world, &function);
}

/// Resets the controller, and enables it with empty admin queues.
fn enable(function: &Function) {
    let set = |register, value| store(function.bar + register, Width::Double, value);
    set(CC, 0);
    clear(SUBMISSION, 0x1000);
    clear(COMPLETION, 0x1000);
    set(AQA, (ENTRIES - 1) | (ENTRIES - 1) << 16);
    for (register, place) in [(ASQ, SUBMISSION), (ACQ, COMPLETION)] {
        set(register, place);
        set(register + 4, 0);
    }
    set(CC, ENABLED);
}

/// One command to the controller in entry `slot`, and the doorbell.
fn admin(function: &Function, slot: u64, opcode: u64, data: u64, words: [u64; 2]) {
    let command = SUBMISSION + (slot % ENTRIES) * 64;
    clear(command, 64);
    store(command, Width::Quad, opcode);
    store(command + 24, Width::Quad, data);
    store(command + 40, Width::Double, words[0]);
    store(command + 44, Width::Double, words[1]);
    store(
        function.bar + DOORBELLS,
        Width::Double,
        (slot + 1) % ENTRIES,
    );
}

/// Commands of all kinds, with every field wrong in turn.
fn fill_queue(random: &mut Random, memory_end: u64, queue: u64) {
    for slot in 0..ENTRIES {
        let command = SUBMISSION + queue * 0x1000 + slot * 64;
        let opcode = match queue {
            0 => random.pick(&[0, 1, 2, 4, 5, 6, 8, 9, 0xa, 0xc, 0x10, 0x7c, 0x80, 0xff]),
            _ => random.pick(&[0, 1, 1, 2, 2, 4, 5, 8, 9, 0xd, 0xff]),
        };
        let flags = random.pick(&[0, 0, 0, 0x40, 1]);
        store(
            command,
            Width::Double,
            opcode | flags << 8 | random.below(0x1_0000) << 16,
        );
        let namespace = random.pick(&[1, 1, 1, 0, 2, 0xffff_ffff]);
        store(command + 4, Width::Double, namespace);
        store(
            command + 24,
            Width::Quad,
            target(random, memory_end) & !random.pick(&[0xfff, 3]),
        );
        let second = match random.below(3) {
            0 => target(random, memory_end),
            _ => LIST + random.below(0x200) * 8,
        };
        store(command + 32, Width::Quad, second);
        for word in 0..6 {
            let value = match random.below(3) {
                0 => random.value() & 0xffff_ffff,
                _ => random.below(0x100),
            };
            store(command + 40 + 4 * word, Width::Double, value);
        }
    }
}

/// Lists of pages that lead anywhere, and back to themselves.
fn fill_lists(random: &mut Random, memory_end: u64) {
    for entry in 0..0x200 {
        let page = match random.below(8) {
            0 => LIST,
            1 => LIST + 8 * random.below(0x200),
            _ => target(random, memory_end) & !0xfff,
        };
        store(LIST + 8 * entry, Width::Quad, page);
    }
}

/// After a reset the controller says what it is.
fn ends_well(world: &mut World, function: &Function) {
    enable(function);
    if load(function.bar + CSTS, Width::Double) != READY {
        world.bad(format_args!(
            "the NVMe controller is not ready after a reset"
        ));
        return;
    }
    admin(function, 0, IDENTIFY, DATA, [1, 0]);
    for _ in 0..100_000 {
        // The phase tag, and no status.
        if load(COMPLETION + 12, Width::Double) >> 16 == 1 {
            return;
        }
        load(function.bar + CSTS, Width::Double);
    }
    world.bad(format_args!("the NVMe controller does not answer"));
}
