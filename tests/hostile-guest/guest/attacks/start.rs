//! The order in which a driver starts its device (virtio 1.2, 3.1.1).

use crate::World;
use crate::io::Width;
use crate::virtio::{self, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, VERSION_1};

/// Status bits added, skipped and taken back in any order.
pub fn status_order(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for _ in 0..world.rounds * 150 {
            let before = device.status();
            let value = world.random.next() as u8 & world.random.pick(&[0xff, 0x0f, 0x4f]);
            device.set_status(value);
            let after = device.status();
            // Only a reset takes bits away.
            if value != 0 && before & !after != 0 {
                world.bad(format_args!(
                    "{}: status {value:#x} made {before:#x} into {after:#x}",
                    device.name()
                ));
            }
            if after & DRIVER_OK != 0 && before & FEATURES_OK == 0 && before & DRIVER_OK == 0 {
                world.bad(format_args!(
                    "{}: started without agreeing on features",
                    device.name()
                ));
            }
        }
        world.must_start(&device);
    }
}

/// Features that were never offered, and none at all.
pub fn features(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        let offered = device.offered();
        let strange = (0..64)
            .map(|bit| 1_u64 << bit)
            .filter(|bit| offered & bit == 0);
        for bit in strange.chain([u64::MAX]) {
            if device.negotiate(VERSION_1 | bit) {
                world.bad(format_args!(
                    "{} takes features {bit:#x} it does not have",
                    device.name()
                ));
            }
        }
        if device.negotiate(offered & !VERSION_1) {
            world.bad(format_args!(
                "{} takes a driver from before version 1",
                device.name()
            ));
        }
        // Changed after they were agreed on.
        if device.negotiate(VERSION_1) {
            device.set(0x08, Width::Double, 0);
            device.set(0x0c, Width::Double, u64::MAX);
            if device.get(0x0c, Width::Double) != 0 {
                world.bad(format_args!(
                    "{} lets features change afterwards",
                    device.name()
                ));
            }
        }
        device.reset();
    }
}

/// Queue registers while the device uses the queue.
pub fn frozen_queues(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        if !world.must_start(&device) {
            continue;
        }
        for number in 0..device.queues() {
            device.set(0x16, Width::Word, number.into());
            let before = registers(&device);
            for offset in (0x18..0x38).filter(|offset| !(0x1a..0x1c).contains(offset)) {
                for &width in world.widths(Width::ALL) {
                    device.set(offset, width, world.random.value());
                }
            }
            if registers(&device) != before {
                world.bad(format_args!(
                    "{}: queue {number} changes while in use",
                    device.name()
                ));
            }
        }
        device.set_status(ACKNOWLEDGE | DRIVER);
        device.reset();
    }
}

fn registers(device: &virtio::Device) -> [u64; 5] {
    [
        device.get(0x18, Width::Word),
        device.get(0x1c, Width::Word),
        device.get(0x20, Width::Quad),
        device.get(0x28, Width::Quad),
        device.get(0x30, Width::Quad),
    ]
}
