//! Drivers of the NVM Express controller.

use lodge_fuzz::nvme::command;
use lodge_fuzz::operation::Piece;
use lodge_fuzz::virtio::{DATA, readable, writable};

use super::script::{Script, Seed};

const PAGE: u64 = 4096;
/// Completions stay where they are.
const LEAVE: u8 = 0x80;

/// Inputs for a controller.
pub fn seeds() -> Vec<Seed> {
    vec![
        ("nvme", "admin", admin()),
        ("nvme", "data", data()),
        ("nvme", "registers", registers()),
        ("nvme", "shadow", shadow()),
    ]
}

fn page() -> [Piece; 1] {
    [writable(DATA, PAGE as u32)]
}

fn admin() -> Vec<u8> {
    let mut script = Script::after(&[0]);
    // Identify: controller, namespace, lists, descriptors.
    for which in [1, 0, 2, 3] {
        script = script.command(command(0, 6, &[which], &page()), 0);
    }
    // Log pages: errors, health, firmware, changed namespaces, effects.
    for log in 1..=5 {
        script = script.command(command(0, 2, &[log | 15 << 16], &page()), 0);
    }
    // Features, read and set: arbitration, power, temperature, errors, cache, queues, coalescing, events.
    for (feature, value) in [
        (1, 0),
        (2, 0),
        (4, 0x157),
        (5, 0),
        (6, 1),
        (7, 3 << 16 | 3),
        (8, 0),
        (9, 1),
        (11, 0x100),
    ] {
        script = script
            .command(command(0, 10, &[feature], &[]), 0)
            .command(command(0, 9, &[feature, value], &[]), 0);
    }
    script
        // Wait for events; the disk grows; what has changed is read.
        .command(command(0, 12, &[], &[]), 0)
        .host(0, &[0; 8])
        .command(command(0, 2, &[4 | 15 << 16], &page()), 0)
        // Abort; a queue goes, in the wrong and in the right order, and comes back.
        .command(command(0, 8, &[1 | 7 << 16], &[]), 0)
        .command(command(0, 4, &[1], &[]), 0)
        .command(command(0, 0, &[1], &[]), 0)
        .command(command(0, 4, &[1], &[]), 0)
        .save_restore()
        .command(command(0, 5, &[1 | 15 << 16, 3], &page()), 0)
        .command(command(0, 1, &[1 | 15 << 16, 1 << 16 | 1], &page()), 0)
        .bytes()
}

fn data() -> Vec<u8> {
    let two = [writable(DATA, 4096), writable(DATA + PAGE, 4096)];
    let list: Vec<Piece> = (0..5)
        .map(|page| writable(DATA + page * PAGE, 4096))
        .collect();
    let read = |first, blocks: u32, data: &[Piece]| command(1, 2, &[first, 0, blocks - 1], data);
    let write = |first, blocks: u32, data: &[Piece]| command(2, 1, &[first, 0, blocks - 1], data);
    // A range to be given back: attributes, blocks, first block.
    let range = [[0; 4].as_slice(), &[8, 0, 0, 0], &[16], &[0; 7]].concat();
    Script::after(&[0])
        .command(read(0, 8, &page()), 0)
        .command(read(8, 16, &two), 0)
        .command(read(0, 40, &list), 0)
        // Not at the beginning of a page.
        .command(read(3, 8, &[writable(DATA + 0x200, 0), two[1].clone()]), 0)
        .command(write(64, 8, &page()), 0)
        .command(write(72, 40, &list), 0)
        // Flush, zeroes, a range given back.
        .command(command(2, 0, &[], &[]), 0)
        .command(command(2, 8, &[80, 0, 7 | 1 << 25], &[]), 0)
        .command(command(2, 9, &[0, 4], &[readable(DATA, &range)]), 0)
        // Beyond the end, and through the cache.
        .command(read(2047, 8, &page()), 0)
        .command(command(2, 1, &[0, 0, 1 << 30], &page()), 0)
        .command(read(0, 1, &page()), LEAVE)
        .save_restore()
        .command(read(0, 1, &page()), LEAVE)
        .host(0, &[0; 4])
        .command(read(2048, 8, &page()), 0)
        .bytes()
}

fn registers() -> Vec<u8> {
    let script = [0, 4, 8, 0x1c, 0x20, 0x24]
        .into_iter()
        .fold(Script::after(&[0]), |script, offset| {
            script.read(0, offset, 4)
        });
    script
        .read(0, 0, 8)
        .write(0, 0x0c, &[1, 0, 0, 0])
        .write(0, 0x10, &[1, 0, 0, 0])
        // Shut down, disabled, enabled with other queues.
        .write(0, 0x14, &0x0046_4001_u32.to_le_bytes())
        .read(0, 0x1c, 4)
        .write(0, 0x14, &0x0046_0000_u32.to_le_bytes())
        .write(0, 0x24, &0x003f_003f_u32.to_le_bytes())
        .write(0, 0x28, &0x8000_u64.to_le_bytes())
        .write(0, 0x30, &0xc000_u64.to_le_bytes())
        .write(0, 0x14, &0x0046_0001_u32.to_le_bytes())
        // Doorbells that are none, and values that cannot be.
        .write(1, 0x28, &[1, 0, 0, 0])
        .write(1, 0, &[0xff, 0xff, 0, 0])
        .write(2, 0, &[0; 8])
        .write(0x80, 0x40, &[0x11, 0, 0, 0])
        .write(0x80, 4, &[2, 0])
        .power_cycle()
        .bytes()
}

/// Doorbells in memory.
fn shadow() -> Vec<u8> {
    let pages = [writable(0xc000, 4096), writable(0xd000, 4096)];
    Script::after(&[0])
        .command(command(0, 0x7c, &[], &pages), 0)
        .put(0xc008, &[1, 0, 0, 0])
        .command(command(1, 2, &[0, 0, 7], &page()), 0)
        .put(0xc008, &[2, 0, 0, 0])
        .command(command(1, 2, &[8, 0, 7], &page()), LEAVE)
        .put(0xc00c, &[2, 0, 0, 0])
        .save_restore()
        .put(0xc008, &[0xff, 0xff, 0, 0])
        .command(command(1, 0, &[], &[]), 0)
        .bytes()
}
