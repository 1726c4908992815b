//! What only machines with firmware have: its configuration (fw_cfg), the screen it sets up, the flash chip.

use core::sync::atomic::{Ordering, compiler_fence};

use crate::World;
use crate::io::{Width, input, load, output, raw_input, raw_output, store};
use crate::memory::{ARENA, target};

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const DMA: u16 = 0x514;
const DIRECTORY: u16 = 0x19;

const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;

fn present() -> bool {
    raw_output(SELECTOR, Width::Word, 0);
    [0; 4].map(|_: u8| raw_input(DATA, Width::Byte) as u8) == *b"QEMU"
}

pub fn items(world: &mut World) {
    if !present() {
        return;
    }
    for _ in 0..world.rounds {
        for key in (0..0x60).chain([
            0x4000,
            0x8000,
            0xc000,
            0xffff,
            world.random.next() as u32 & 0xffff,
        ]) {
            for &width in world.widths(Width::PORTS) {
                output(SELECTOR, Width::Word, key);
                for _ in 0..20 {
                    input(DATA, width);
                }
                output(DATA, width, world.random.next() as u32);
            }
        }
    }
}

/// Puts a request at `at` and starts it.
fn request(at: u64, control: u32, length: u32, address: u64) {
    store(at, Width::Double, control.swap_bytes().into());
    store(at + 4, Width::Double, length.swap_bytes().into());
    store(at + 8, Width::Quad, address.swap_bytes());
    start(at);
}

fn start(at: u64) {
    compiler_fence(Ordering::SeqCst);
    output(DMA, Width::Double, ((at >> 32) as u32).swap_bytes());
    output(DMA + 4, Width::Double, (at as u32).swap_bytes());
}

pub fn dma(world: &mut World) {
    if !present() {
        return;
    }
    const LENGTHS: &[u32] = &[
        0,
        1,
        16,
        28,
        4096,
        4097,
        1 << 20,
        (1 << 20) + 1,
        1 << 31,
        u32::MAX,
    ];
    for _ in 0..world.rounds * 60 {
        let key = world.random.below(0x60) as u32 | world.random.pick(&[0, 0, 0x4000, 0x8000]);
        let control =
            world.random.pick(&[READ, WRITE, SKIP, SELECT, 1, 0xffff]) | SELECT | key << 16;
        let length = world.random.pick(LENGTHS);
        let address = target(&mut world.random, world.memory_end);
        request(ARENA, control, length, address);
        // Onto itself, before itself, and one after the other without selecting.
        request(ARENA + 8, READ | SELECT | key << 16, 64, ARENA + 8);
        request(ARENA + 8, READ, length.min(4096), ARENA);
        start(target(&mut world.random, world.memory_end) | 1 << 63);
        start(world.memory_end - world.random.below(32));
    }
}

/// The key of a file of the directory.
fn file(name: &[u8]) -> Option<u32> {
    raw_output(SELECTOR, Width::Word, DIRECTORY.into());
    let byte = || raw_input(DATA, Width::Byte) as u8;
    let count = u32::from_be_bytes([byte(), byte(), byte(), byte()]);
    for _ in 0..count.min(64) {
        let mut entry = [0; 64];
        for place in &mut entry {
            *place = byte();
        }
        if entry[8..].starts_with(name) && entry[8 + name.len()] == 0 {
            return Some(u32::from(u16::from_be_bytes([entry[4], entry[5]])));
        }
    }
    None
}

/// Pictures no screen has, while somebody outside looks at it.
pub fn screen(world: &mut World) {
    let Some(key) = present().then(|| file(b"etc/ramfb")).flatten() else {
        return;
    };
    const SIZES: &[u64] = &[
        0,
        1,
        15,
        16,
        640,
        800,
        4096,
        0x7fff,
        0x8000,
        0x7fff_ffff,
        0xffff_ffff,
    ];
    for _ in 0..world.rounds * 60 {
        let config = ARENA + 0x100;
        let address = target(&mut world.random, world.memory_end);
        store(config, Width::Quad, address.swap_bytes());
        let format = world.random.pick(&[
            u32::from_le_bytes(*b"XR24"),
            u32::from_le_bytes(*b"RG16"),
            0,
            u32::MAX,
        ]);
        store(config + 8, Width::Double, format.swap_bytes().into());
        for offset in [12, 16, 20, 24] {
            let size = world.random.pick(SIZES) as u32;
            store(config + offset, Width::Double, size.swap_bytes().into());
        }
        // Whole, and in two pieces.
        request(ARENA, WRITE | SELECT | key << 16, 28, config);
        let cut = world.random.below(28) as u32;
        request(ARENA, WRITE | SELECT | key << 16, cut, config);
        request(
            ARENA,
            WRITE,
            28 - cut + world.random.below(2) as u32,
            config + u64::from(cut),
        );
    }
}

/// The chip's commands in any order and width, up to and over its end.
pub fn flash(world: &mut World) {
    if world.flash == 0 {
        return;
    }
    let length = (1 << 32) - world.flash;
    for _ in 0..world.rounds * 300 {
        let at = match world.random.below(8) {
            0 => world.flash + world.random.below(8),
            1 => u64::from(u32::MAX) - 7,
            _ => world.flash + world.random.below(length - 8),
        };
        let command = world.random.pick(&[
            0xff, 0x70, 0x50, 0x10, 0x40, 0x20, 0xd0, 0x90, 0xe8, 0x98, 0x00,
        ]);
        store(
            at,
            world.random.pick(Width::ALL),
            command | world.random.value() << 8,
        );
        load(at, world.random.pick(Width::ALL));
    }
    store(world.flash, Width::Byte, 0xff);
}
