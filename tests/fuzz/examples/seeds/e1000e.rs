//! Drivers of the Intel network card.

use lodge_fuzz::e1000e::{LAST, descriptors};
use lodge_fuzz::operation::Piece;
use lodge_fuzz::virtio::{DATA, readable};

use super::script::{Script, Seed};

/// Upper halves of descriptors (82574 datasheet, 7.2.10).
const EXTENDED: u64 = 1 << 29;
const DATA_FORM: u64 = 1 << 20 | EXTENDED;
const SEGMENT: u64 = 1 << 26;
const CHECKSUMS: u64 = 3 << 40;
const TAG: u64 = 1 << 30;
/// Of a context: TCP over IPv4.
const TCP: u64 = 3 << 24;
const END: u64 = 1 << 24;

const RECEIVE: u8 = 2;

/// Inputs for a card.
pub fn seeds() -> Vec<Seed> {
    vec![
        ("e1000e", "packets", packets()),
        ("e1000e", "segments", segments()),
        ("e1000e", "registers", registers()),
    ]
}

/// A TCP packet over IPv4 of `length` bytes.
fn tcp(length: u16) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((length - 14).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18, 4, 0]);
    frame.resize(length.into(), 7);
    frame
}

/// Offsets of checksums in such a packet, its headers, and how long segments are.
fn context(segment: u64) -> (u64, u64) {
    let low = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40;
    (low, TCP | EXTENDED | SEGMENT | 54 << 40 | segment << 48)
}

fn packets() -> Vec<u8> {
    let frame = [readable(DATA, &tcp(200))];
    let two = [readable(DATA, &tcp(100)), readable(DATA + 0x1000, &[1; 60])];
    Script::after(&[0])
        .command(descriptors(0, &[LAST], &frame), 0)
        // Two pieces, on the other ring; an inserted checksum; a tag.
        .command(descriptors(1, &[0, LAST], &two), 0)
        .command(
            descriptors(0, &[LAST | 1 << 26 | 14 << 40 | 24 << 16], &frame),
            0,
        )
        .command(descriptors(0, &[LAST | TAG | 5 << 48], &frame), 0)
        .host(0, &[1; 100])
        .host(0, &[200; 250])
        .save_restore()
        .command(descriptors(RECEIVE, &[0], &[readable(0x4_0000, &[])]), 0)
        .host(0, &[0xff; 60])
        .write(7, 0x18, &[0; 4])
        .bytes()
}

fn segments() -> Vec<u8> {
    let (low, high) = context(100);
    let told = Piece {
        address: low,
        ..readable(0, &[])
    };
    let large = Piece {
        length: 1000,
        ..readable(DATA, &tcp(250))
    };
    let plain = [readable(DATA, &tcp(200))];
    Script::after(&[1])
        .command(descriptors(0, &[high], &[told]), 0)
        .command(
            descriptors(
                0,
                &[DATA_FORM | SEGMENT | END | CHECKSUMS | 1 << 27],
                &[large],
            ),
            0,
        )
        .command(descriptors(0, &[DATA_FORM | END | CHECKSUMS], &plain), 0)
        .host(0, &[0xff; 200])
        .save_restore()
        .host(0, &[0xff; 100])
        .bytes()
}

fn registers() -> Vec<u8> {
    let word = u32::to_le_bytes;
    Script::after(&[0])
        .read(0, 8, 4)
        .read(0, 0xc0, 4)
        // The NVM, the PHY, interrupts by hand.
        .write(0, 0x14, &word(1))
        .read(0, 0x14, 4)
        .write(0, 0x20, &word(2 << 26 | 1 << 21 | 1 << 16))
        .read(0, 0x20, 4)
        .write(0, 0xd0, &word(u32::MAX))
        .write(0, 0xc8, &word(4))
        .read(0, 0xc0, 4)
        .read(3, 0x74, 4)
        // Header split, another size of buffers, filters.
        .write(0, 0x100, &word(1 << 1 | 1 << 10 | 3 << 16))
        .write(4, 0x400, &[1; 4])
        .write(4, 0x404, &word(1 << 31))
        .host(0, &[0xff; 90])
        // Reset, link, power.
        .write(0, 0, &word(1 << 26))
        .write(0, 0, &word(1 << 31))
        .write(5, 0, &word(0xfee0_0000))
        .write(0x80, 4, &[2, 0])
        .power_cycle()
        .bytes()
}
