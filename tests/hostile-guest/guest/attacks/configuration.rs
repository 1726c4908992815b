//! PCI configuration space, by ports and by memory; BARs and the window itself moved to where they do not belong.

use crate::World;
use crate::io::{Width, load, store};
use crate::memory::ARENA;
use crate::pci::{self, BAR0, COMMAND, COMMAND_ON, ECAM, Function};
use crate::virtio;

fn place_window(value: u64) {
    pci::write(0, 0x64, Width::Double, (value >> 32) as u32);
    pci::write(0, 0x60, Width::Double, value as u32);
}

pub fn every_register(world: &mut World) {
    for function in world.functions.iter() {
        let base = ECAM + (u64::from(function.devfn) << 12);
        place_window(ECAM | 1);
        for offset in (0..0x104).chain(0xffc..0x1000) {
            // The window and the PM block stay.
            let fixed = matches!(
                (function.devfn, offset),
                (0, 0x5c..=0x67) | (0xf8, 0x3c..=0x47)
            );
            for &width in world.widths(Width::ALL) {
                load(base + offset, width);
                if !fixed {
                    store(base + offset, width, world.random.value());
                }
            }
        }
        // By ports, as far as they reach.
        for offset in (0..=255_u8).step_by(3) {
            for &width in world.widths(Width::PORTS) {
                function.read(offset, width);
            }
        }
        if function.bar != 0 {
            function.put_back();
        }
    }
    for device in virtio::devices(&world.functions) {
        world.must_start(&device);
    }
}

/// Functions, buses and registers that are not there.
pub fn nobody(world: &mut World) {
    for _ in 0..world.rounds * 300 {
        // Bus 0 is for the other attacks.
        let offset = (1 << 20) + world.random.below((256 << 20) - (1 << 20));
        let width = world.random.pick(Width::ALL);
        store(ECAM + offset, width, world.random.value());
        if width != Width::Quad
            && offset & 0xfff < 0xff8
            && load(ECAM + offset, width) & 0xff != 0xff
        {
            world.bad(format_args!(
                "something answers at {offset:#x} of the configuration space"
            ));
        }
    }
}

/// Where a BAR can be put, if not where it should be.
fn places(function: Function, other: Function, memory_end: u64) -> [u64; 14] {
    [
        0x1000,
        ARENA,
        memory_end - function.length,
        memory_end,
        ECAM,
        ECAM + 0x10_0000,
        other.bar,
        other.bar + 0x1000,
        0xfec0_0000,
        0xfee0_0000,
        0xfeff_8000,
        0xffff_0000,
        1 << 51,
        u64::MAX & !(function.length - 1),
    ]
}

pub fn moving_bars(world: &mut World) {
    let memory_end = world.memory_end;
    for function in world.functions.with_bar() {
        let others = world
            .functions
            .with_bar()
            .find(|other| other.devfn != function.devfn);
        for base in places(function, others.unwrap_or(function), memory_end) {
            // With decoding on, in two halves: as no driver does.
            function.move_to(base);
            for offset in [0, 0x14, 0x3000, 0x4000, function.length - 1] {
                let address = base.wrapping_add(offset);
                if (memory_end..1 << 32).contains(&address)
                    && !(0xfec0_0000..0xfef0_0000).contains(&address)
                {
                    load(address, Width::Double);
                }
            }
            function.write(COMMAND, Width::Word, world.random.next() as u32 & 0x7);
            function.write(BAR0, Width::Byte, world.random.next() as u32 & 0xff);
        }
        // Sizing, with decoding on.
        function.write(COMMAND, Width::Word, COMMAND_ON);
        function.move_to(u64::MAX);
        function.put_back();
    }
    started(world);
}

pub fn moving_ecam(world: &mut World) {
    let some_bar = world
        .functions
        .with_bar()
        .next()
        .map_or(0, |function| function.bar);
    for length in 0..4 {
        for base in [
            0,
            ARENA,
            world.memory_end,
            0xc000_0000,
            0xf000_0000,
            0xfc00_0000,
            some_bar,
            u64::MAX,
        ] {
            place_window(base & !0x7 | length << 1 | 1);
            load(ECAM, Width::Double);
            load(ECAM + 0x8000, Width::Quad);
        }
    }
    place_window(ECAM | 1);
    started(world);
}

/// Bus mastering and decoding off and on while a device is at work.
pub fn commands_during_requests(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        for _ in 0..world.rounds * 2 {
            if !device.start() {
                continue;
            }
            super::notifications::offer_all(&device);
            for _ in 0..8 {
                let command = world.random.next() as u32 & 0x0407;
                device.function.write(COMMAND, Width::Word, command);
                device.notify(0);
            }
            device.function.put_back();
        }
    }
    started(world);
}

/// All devices must start afterwards.
fn started(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        device.function.put_back();
        world.must_start(&device);
    }
}
