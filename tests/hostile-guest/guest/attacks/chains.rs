//! Descriptor chains that break the rules (virtio 1.2, 2.7.5), and some that only look as if they did.

use crate::World;
use crate::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};
use crate::virtio::{self, Device, Outcome};

/// Fills the ring; the device gets memory's end.
type Build = fn(&Ring, u64);

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        flags,
        next,
    }
}

fn table(ring: &Ring, length: u32, flags: u16) -> Descriptor {
    descriptor(ring.table(), length, INDIRECT | flags, 1)
}

/// After any of these a device needs a reset.
const BROKEN: &[(&str, Build)] = &[
    ("a head beyond the table", |ring, _| ring.put(0, ring.size)),
    ("head 65535", |ring, _| ring.put(0, 0xffff)),
    ("a loop of one", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), 16, NEXT | WRITE, 0))
    }),
    ("a loop of two", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), 16, NEXT | WRITE, 1));
        ring.describe(1, descriptor(ring.buffer(), 16, NEXT | WRITE, 0));
    }),
    ("a loop of empty buffers", |ring, _| {
        ring.describe(0, descriptor(0, 0, NEXT, 0))
    }),
    ("a link out of the table", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), 16, NEXT | WRITE, 0x8000))
    }),
    ("readable after writable", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), 16, NEXT | WRITE, 1));
        ring.describe(1, descriptor(ring.buffer(), 16, 0, 0));
    }),
    ("a buffer in a hole", |ring, end| {
        ring.describe(0, descriptor(end, 16, WRITE, 0))
    }),
    ("a buffer in configuration space", |ring, _| {
        ring.describe(0, descriptor(0xb000_0000, 16, WRITE, 0))
    }),
    ("a buffer in the local APIC", |ring, _| {
        ring.describe(0, descriptor(0xfee0_0000, 16, WRITE, 0))
    }),
    ("a buffer in the generation id", |ring, _| {
        ring.describe(0, descriptor(0xfeff_b000, 16, WRITE, 0))
    }),
    ("a buffer above everything", |ring, _| {
        ring.describe(0, descriptor(1 << 51, 16, WRITE, 0))
    }),
    ("a buffer across memory's end", |ring, end| {
        ring.describe(0, descriptor(end - 8, 16, WRITE, 0))
    }),
    ("a buffer across 2^64", |ring, _| {
        ring.describe(0, descriptor(u64::MAX - 7, 16, WRITE, 0))
    }),
    ("4 GiB in one buffer", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), u32::MAX, WRITE, 0))
    }),
    ("a readable buffer of 4 GiB", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), u32::MAX, 0, 0))
    }),
    ("a table in a table", |ring, _| {
        ring.describe(0, table(ring, 32, 0));
        ring.describe_indirect(0, table(ring, 32, 0));
    }),
    ("a table in a hole", |ring, end| {
        ring.describe(0, descriptor(end, 32, INDIRECT, 0))
    }),
    ("a table across 2^64", |ring, _| {
        // Its second entry is where addresses begin again.
        ring.describe(0, descriptor(u64::MAX - 15, 64, INDIRECT, 0));
    }),
    ("a table of nothing", |ring, _| {
        ring.describe(0, table(ring, 0, 0))
    }),
    ("a table of 17 bytes", |ring, _| {
        ring.describe(0, table(ring, 17, 0))
    }),
    ("a table of 4 GiB", |ring, _| {
        ring.describe(0, table(ring, 0xffff_fff0, 0))
    }),
    ("a table with a link", |ring, _| {
        ring.describe(0, table(ring, 16, NEXT));
        ring.describe(1, descriptor(ring.buffer(), 16, WRITE, 0));
    }),
    ("a loop in a table", |ring, _| {
        ring.describe(0, table(ring, 32, 0));
        ring.describe_indirect(0, descriptor(ring.buffer(), 16, NEXT | WRITE, 1));
        ring.describe_indirect(1, descriptor(ring.buffer(), 16, NEXT | WRITE, 0));
    }),
    ("a link out of a table", |ring, _| {
        ring.describe(0, table(ring, 32, 0));
        ring.describe_indirect(0, descriptor(ring.buffer(), 16, NEXT | WRITE, 2));
    }),
    ("more than 4 GiB in one chain", |ring, end| {
        ring.describe(0, table(ring, 64 * 16, 0));
        let length = (end - ring.buffer()) as u32;
        // As many whole memories as it takes, one after the other.
        for index in 0..64 {
            ring.describe_indirect(
                index,
                descriptor(ring.buffer(), length, WRITE | NEXT, index + 1),
            );
        }
    }),
];

/// With these a device may do as it likes, short of harm.
const ODD: &[(&str, Build)] = &[
    ("an empty buffer", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), 0, WRITE, 0))
    }),
    ("an empty buffer nowhere", |ring, _| {
        ring.describe(0, descriptor(u64::MAX, 0, 0, 0))
    }),
    ("unknown flags", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), 16, 0xfff8 | WRITE, 0))
    }),
    ("one buffer many times", |ring, _| {
        for index in 0..32 {
            ring.describe(
                index,
                descriptor(ring.buffer(), 0x4000, WRITE | NEXT, index + 1),
            );
        }
        ring.describe(32, descriptor(ring.buffer() + 1, 0x4000, WRITE, 0));
    }),
    ("its own table as the buffer", |ring, _| {
        ring.describe(0, table(ring, 32, 0));
        ring.describe_indirect(0, descriptor(ring.table(), 32, WRITE, 0));
    }),
    ("one byte, readable", |ring, _| {
        ring.describe(0, descriptor(ring.buffer(), 1, 0, 0))
    }),
    ("bytes one by one", |ring, _| {
        for index in 0..40 {
            let flags = if index < 20 { NEXT } else { NEXT | WRITE };
            ring.describe(
                index,
                descriptor(ring.buffer() + u64::from(index), 1, flags, index + 1),
            );
        }
        ring.describe(40, descriptor(ring.buffer() + 40, 1, WRITE, 0));
    }),
    ("a readable buffer up to memory's end", |ring, end| {
        ring.describe(0, descriptor(end - 4, 4, 0, 0))
    }),
];

pub fn broken(world: &mut World) {
    each(world, |world, device, queue| {
        for (what, build) in BROKEN {
            let outcome = offer(world, device, queue, *build, 1);
            if device.looks_at(queue) && outcome != Outcome::Broken {
                world.bad(format_args!(
                    "{} {queue}: does not break off at {what}",
                    device.name()
                ));
            }
        }
    });
}

pub fn odd(world: &mut World) {
    each(world, |world, device, queue| {
        for (what, build) in ODD {
            // Once, and the same head several times at once.
            for times in [1, 3] {
                let outcome = offer(world, device, queue, *build, times);
                if device.looks_at(queue) && outcome == Outcome::Silent {
                    world.bad(format_args!(
                        "{} {queue}: no answer to {what}",
                        device.name()
                    ));
                }
            }
        }
    });
}

fn each(world: &mut World, attack: fn(&mut World, &Device, u16)) {
    for device in virtio::devices(&world.functions) {
        for queue in 0..device.queues() {
            attack(world, &device, queue);
        }
        world.must_start(&device);
    }
}

/// Starts the device afresh and offers it head 0, unless the builder says otherwise.
fn offer(world: &mut World, device: &Device, queue: u16, build: Build, times: u16) -> Outcome {
    if !world.must_start(device) {
        return Outcome::Silent;
    }
    let ring = device.ring(queue);
    build(&ring, world.memory_end);
    ring.set_index(times);
    device.notify(queue);
    if device.looks_at(queue) {
        device.outcome(&ring)
    } else {
        // A look at it, as a driver has.
        device.status();
        Outcome::Silent
    }
}
