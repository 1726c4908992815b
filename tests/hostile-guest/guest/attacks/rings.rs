//! The rings themselves: indices that jump, and rings the device is told to write to.

use crate::World;
use crate::ring::{Descriptor, WRITE};
use crate::virtio::{self, Outcome};

pub fn index_jumps(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for queue in (0..device.queues()).filter(|&queue| device.looks_at(queue)) {
            let size = device.queue_size(queue);
            for index in [size + 1, 0x7fff, 0x8000, 0xffff] {
                world.must_start(&device);
                let ring = device.ring(queue);
                ring.set_index(index);
                device.notify(queue);
                if device.outcome(&ring) != Outcome::Broken {
                    world.bad(format_args!(
                        "{} {queue}: index {index:#x} is taken",
                        device.name()
                    ));
                }
            }
            // Forwards, then backwards.
            device.start();
            let ring = device.ring(queue);
            ring.describe(
                0,
                Descriptor {
                    address: ring.buffer(),
                    length: 0,
                    flags: WRITE,
                    next: 0,
                },
            );
            ring.set_index(2);
            device.notify(queue);
            device.outcome(&ring);
            ring.set_index(1);
            device.notify(queue);
            device.status();
        }
        world.must_start(&device);
    }
}

/// The device writes its data over its own descriptors, its available and its used ring.
pub fn written_by_the_device(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for queue in 0..device.queues() {
            for turn in 0..world.rounds * 3 {
                world.must_start(&device);
                let ring = device.ring(queue);
                let address = ring.addresses()[turn as usize % 3];
                for head in 0..16 {
                    ring.describe(
                        head,
                        Descriptor {
                            address,
                            length: 0x100,
                            flags: WRITE,
                            next: 0,
                        },
                    );
                    ring.put(head, head);
                }
                ring.set_index(16);
                device.notify(queue);
                for _ in 0..16 {
                    device.notify(queue);
                    device.status();
                }
            }
        }
        world.must_start(&device);
    }
}
