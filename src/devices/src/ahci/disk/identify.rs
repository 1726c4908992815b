//! What a disk says of itself (IDENTIFY DEVICE, ACS-3, 7.12.7).

use super::{DEPTH, Modes, Shared};
use crate::ahci::ata::{IDENTITY_BYTES, Identity};

/// Most blocks of one READ or WRITE MULTIPLE.
pub(super) const MOST_MULTIPLE: u8 = 16;
/// Most 512-byte blocks of ranges one TRIM may bring.
pub(super) const MOST_TRIM_BLOCKS: u16 = 8;

/// Cylinders, heads and sectors of every disk larger than 8 GiB; nobody uses them.
const CYLINDERS: u64 = 16383;
const HEADS: u64 = 16;
const SECTORS: u64 = 63;
const MOST_28_BITS: u64 = 0x0fff_ffff;

const COMMANDS_1: u16 = 0x0068; // power management, write cache, look-ahead
const WRITE_CACHE: u16 = 0x0020;
const COMMANDS_2: u16 = 0x3400; // FLUSH CACHE, FLUSH CACHE EXT, 48-bit addresses
const COMMANDS_3: u16 = 0x0060; // logs, WRITE DMA FUA EXT
/// Bits 15:14 of words that are valid.
const VALID: u16 = 0x4000;

pub(super) fn identity(disk: &Shared, modes: &Modes) -> [u8; IDENTITY_BYTES] {
    let blocks = disk.blocks();
    let block = disk.image.logical_block();
    let cylinders = (blocks / (HEADS * SECTORS)).clamp(1, CYLINDERS);
    let mut words = Identity::new();
    let cache = if modes.write_cache { 0 } else { WRITE_CACHE };
    words.set(&[
        (0, 0x0040),
        (1, cylinders as u16),
        (3, HEADS as u16),
        (6, SECTORS as u16),
        (47, 0x8000 | u16::from(MOST_MULTIPLE)),
        (48, VALID),
        // DMA, logical addresses, IORDY.
        (49, 0x0f00),
        (50, VALID),
        (51, 0x0200),
        // Words 54 to 58, 64 to 70 and 88 are valid.
        (53, 0x0007),
        (54, cylinders as u16),
        (55, HEADS as u16),
        (56, SECTORS as u16),
        // Multiword DMA 0 to 2, PIO 3 and 4, at 120 ns.
        (63, 0x0007),
        (64, 0x0003),
        (65, 120),
        (66, 120),
        (67, 120),
        (68, 120),
        (75, DEPTH - 1),
        // Native queuing, two generations of speed.
        (76, 0x0106),
        // ATA/ATAPI-4 to ACS-3.
        (80, 0x07f0),
        (82, COMMANDS_1),
        (83, VALID | COMMANDS_2),
        (84, VALID | COMMANDS_3),
        (85, COMMANDS_1 & !cache),
        (86, COMMANDS_2),
        (87, VALID | COMMANDS_3),
        // Ultra DMA 0 to 6, the last selected.
        (88, 0x407f),
        (119, VALID),
        (120, VALID),
        (209, VALID),
        // It does not rotate.
        (217, 0x0001),
    ]);
    if modes.multiple != 0 {
        words.set(&[(59, 0x0100 | u16::from(modes.multiple))]);
    }
    words.text(10, 10, &disk.options.serial);
    words.text(23, 4, "1");
    words.text(27, 20, "Lodge disk");
    words.number(57, 2, cylinders * HEADS * SECTORS);
    words.number(60, 2, blocks.min(MOST_28_BITS));
    words.number(100, 4, blocks);
    // Both are powers of two.
    let exponent = disk.image.physical_block().ilog2() - block.ilog2();
    let mut sizes = VALID | exponent as u16;
    if exponent != 0 {
        sizes |= 1 << 13;
    }
    if block > 512 {
        sizes |= 1 << 12;
        words.number(117, 2, u64::from(block / 2));
    }
    words.set(&[(106, sizes)]);
    if disk.image.discard() && !disk.options.read_only {
        words.set(&[(105, MOST_TRIM_BLOCKS), (169, 0x0001)]);
    }
    words.finish()
}
