//! Rings where no ring can be, and where none should.

use crate::World;
use crate::memory::ARENA;
use crate::virtio::{self, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, VERSION_1};

pub fn rings_anywhere(world: &mut World) {
    let end = world.memory_end;
    // Whether the device must see that there is no memory.
    let places = [
        (0, true),
        (end - 16, true),
        (end, true),
        (end + 0x1000, true),
        (0xb000_0000, true),
        (0xfee0_0000, true),
        (0xfeff_b000, true),
        ((1 << 32) - 16, true),
        (1 << 32, true),
        (1 << 51, true),
        (u64::MAX - 0xf, true),
        (u64::MAX & !0xfff, true),
        (1 << 63, true),
        // In memory, but all three in one place, or not aligned.
        (ARENA, false),
        (ARENA + 1, false),
        (ARENA + 0xffe, false),
    ];
    for device in virtio::devices(&world.functions) {
        for &(place, impossible) in &places {
            for which in 0..4 {
                if !world.thorough() && world.random.below(2) == 0 {
                    continue;
                }
                let mut rings = [ARENA, ARENA + 0x8000, ARENA + 0xa000];
                match which {
                    3 => rings = [place; 3],
                    which => rings[which] = place,
                }
                if !device.negotiate(VERSION_1) {
                    world.bad(format_args!("{} does not start", device.name()));
                }
                for number in 0..device.queues() {
                    device.enable(number, rings);
                }
                device.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
                for number in 0..device.queues() {
                    device.notify(number);
                }
                if impossible && device.status() & NEEDS_RESET == 0 {
                    world.bad(format_args!(
                        "{}: takes ring {which} at {place:#x}",
                        device.name()
                    ));
                }
            }
        }
        world.must_start(&device);
    }
}
