//! Virtio registers in any order, and selectors of what does not exist.

use crate::World;
use crate::io::Width;
use crate::memory::{ARENA, ARENA_LENGTH};
use crate::virtio;

/// Offsets of common registers (virtio 1.2, 4.1.4.3).
const COMMON: &[u64] = &[
    0x00, 0x08, 0x0c, 0x10, 0x14, 0x16, 0x18, 0x1a, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34,
];

pub fn any_order(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for _ in 0..world.rounds * 300 {
            match world.random.below(8) {
                0 => device.notify(world.random.below(4) as u16),
                1 => device.set_status(world.random.pick(&[0, 1, 3, 11, 15, 0x80])),
                2 => {
                    // An address where a ring may be.
                    let at = ARENA + (world.random.below(ARENA_LENGTH) & !0xf);
                    device.set(world.random.pick(&[0x20, 0x28, 0x30]), Width::Double, at);
                }
                3 => device.set(
                    virtio::DEVICE + world.random.below(0x40),
                    Width::Double,
                    world.random.value(),
                ),
                _ => {
                    let offset = world.random.pick(COMMON);
                    let width = world.random.pick(Width::ALL);
                    let value = world.random.value();
                    // Rings in low memory are this program.
                    if offset < 0x20 {
                        device.set(offset, width, value);
                    }
                }
            }
        }
        world.must_start(&device);
    }
}

/// Queues and vectors far beyond the last.
pub fn selectors(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for queue in [device.queues(), 0x7f, 0xff, 0x100, 0x7fff, 0x8000, 0xffff] {
            device.set(0x16, Width::Word, queue.into());
            if device.get(0x18, Width::Word) != 0 {
                world.bad(format_args!("{} has a queue {queue:#x}", device.name()));
            }
            for offset in 0x18..0x38 {
                for &width in world.widths(Width::ALL) {
                    device.set(offset, width, world.random.value());
                    device.get(offset, width);
                }
            }
            device.notify(queue);
        }
        for vector in [device.queues() + 1, 0x7ff, 0x800, 0xfffe] {
            device.set(0x10, Width::Word, vector.into());
            if device.get(0x10, Width::Word) != 0xffff {
                world.bad(format_args!("{} takes vector {vector:#x}", device.name()));
            }
        }
        for half in [2, 0x8000_0000, u64::from(u32::MAX)] {
            device.set(0x00, Width::Double, half);
            device.set(0x08, Width::Double, half);
            if device.get(0x04, Width::Double) != 0 {
                world.bad(format_args!(
                    "{} offers features beyond the 64th",
                    device.name()
                ));
            }
        }
    }
}
