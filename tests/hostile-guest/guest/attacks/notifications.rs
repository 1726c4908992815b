//! Work for the monitor without an end: notifications, restarts.

use crate::World;
use crate::io::Width;
use crate::ring::{Descriptor, WRITE};
use crate::virtio::{self, Device, NOTIFY};

/// Offers every descriptor of every queue at once.
pub fn offer_all(device: &Device) {
    for queue in 0..device.queues() {
        let ring = device.ring(queue);
        for head in 0..ring.size.min(64) {
            ring.describe(
                head,
                Descriptor {
                    address: ring.buffer(),
                    length: 0x1000,
                    flags: WRITE,
                    next: 0,
                },
            );
            ring.put(head, head);
        }
        ring.set_index(ring.size.min(64));
    }
}

pub fn endless(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        world.must_start(&device);
        for turn in 0..world.rounds * 250 {
            let queue = world.random.below(u64::from(device.queues()) + 3);
            let width = world.random.pick(Width::ALL);
            device.set(NOTIFY + 4 * queue, width, world.random.value());
            if turn == 100 {
                offer_all(&device);
            }
        }
        world.must_start(&device);
    }
}

/// Started and reset again and again, with requests under way.
pub fn restarts(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for _ in 0..world.rounds * 5 {
            world.must_start(&device);
            offer_all(&device);
            for queue in 0..device.queues() {
                device.notify(queue);
            }
        }
        device.reset();
        if device.status() != 0 {
            world.bad(format_args!("{} is not reset", device.name()));
        }
    }
}
