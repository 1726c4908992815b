//! Every register of every function, in every width.

use super::{ahci, e1000e, nvme};
use crate::World;
use crate::io::{Width, load, store};
use crate::pci::Function;
use crate::virtio::{self, MSIX_TABLE};

pub fn every_register(world: &mut World) {
    for function in world.functions.with_bar() {
        sweep(world, function);
    }
    for device in virtio::devices(&world.functions) {
        world.must_start(&device);
    }
}

/// The same with drivers at work.
pub fn every_register_in_use(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        world.must_start(&device);
        sweep(world, device.function);
        world.must_start(&device);
    }
}

/// Each page's first registers, its end, and a sample of what is between; all of it when there are rounds for that.
fn sweep(world: &mut World, function: Function) {
    for page in (0..function.length).step_by(0x1000) {
        // A message is a system call of the monitor's, and one of the kernel's slowest.
        let first = if page == MSIX_TABLE { 0x14 } else { 0x48 };
        let end = function.length.min(page + 0x1000);
        if world.thorough() {
            for offset in page..end {
                touch(world, &function, offset);
            }
            continue;
        }
        for offset in (page..page + first).chain(end - 7..end) {
            touch(world, &function, offset);
        }
        for _ in 0..16 {
            let offset = world.random.below(end - page);
            touch(world, &function, page + offset);
        }
    }
}

/// Reads a register and writes anything to it, unless it says where structures are.
pub fn touch(world: &mut World, function: &Function, offset: u64) {
    for &width in world.widths(Width::ALL) {
        load(function.bar + offset, width);
        let places = ahci::places_structures(function, offset)
            || nvme::places_structures(function, offset)
            || e1000e::places_structures(function, offset);
        if !places {
            store(function.bar + offset, width, world.random.value());
        }
    }
}
