//! Two processors: one changes what the device of the other is looking at.

use crate::World;
use crate::memory::target;
use crate::ring::{Descriptor, INDIRECT, NEXT};
use crate::second;
use crate::virtio;

pub fn double_fetch(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for queue in 0..device.queues() {
            for turn in 0..world.rounds * 4 {
                world.must_start(&device);
                let ring = device.ring(queue);
                for index in 0..8 {
                    let descriptor = Descriptor {
                        address: ring.buffer(),
                        length: 512,
                        flags: NEXT,
                        next: index + 1,
                    };
                    ring.describe(index, descriptor);
                    ring.describe_indirect(index, descriptor);
                    ring.put(index, index);
                }
                if turn % 2 == 1 {
                    ring.describe(
                        0,
                        Descriptor {
                            address: ring.table(),
                            length: 128,
                            flags: INDIRECT,
                            next: 0,
                        },
                    );
                    second::rewrite(ring.table(), 8);
                } else {
                    second::rewrite(ring.addresses()[0], 8);
                }
                for index in 1..=64 {
                    ring.set_index(index);
                    device.notify(queue);
                }
                second::rest();
            }
        }
        world.must_start(&device);
    }
}

/// Both write to the same device's registers.
pub fn registers(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for (offset, length) in [
            (0x10, 0x10),
            (virtio::DEVICE, 0x40),
            (virtio::NOTIFY, 0x20),
            (virtio::MSIX_TABLE, 0x40),
        ] {
            second::disturb(device.register(offset), length);
            for _ in 0..world.rounds * 4 {
                device.start();
                let ring = device.ring(0);
                let address = target(&mut world.random, world.memory_end);
                ring.describe(
                    0,
                    Descriptor {
                        address,
                        length: 64,
                        flags: 0,
                        next: 0,
                    },
                );
                ring.set_index(1);
                device.notify(0);
                // The BAR moves away and comes back meanwhile.
                device.function.put_back();
            }
            second::rest();
        }
        world.must_start(&device);
    }
}
