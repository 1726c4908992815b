//! VNC viewers.

use super::script::Seed;

/// Inputs for a session.
pub fn seeds() -> Vec<Seed> {
    vec![
        ("rfb", "raw", raw()),
        ("rfb", "zrle", zrle()),
        ("rfb", "old", old()),
    ]
}

/// A message, in the input's steps.
fn says(bytes: &[u8]) -> Vec<u8> {
    [&[0, bytes.len() as u8], bytes].concat()
}

/// The screen is looked at.
fn looks(seed: u8, width: u8, height: u8) -> Vec<u8> {
    vec![2 | seed << 2, width, height]
}

/// The viewer reads.
const READS: [u8; 1] = [3];

const ALL: [u8; 10] = [3, 0, 0, 0, 0, 0, 255, 255, 255, 255];
const CHANGES: [u8; 10] = [3, 1, 0, 0, 0, 0, 255, 255, 255, 255];

fn greets(version: &[u8; 12]) -> Vec<u8> {
    [says(version), says(&[1]), says(&[1]), looks(1, 100, 80)].concat()
}

fn raw() -> Vec<u8> {
    let pointer = [5, 1, 0, 50, 0, 40];
    let key = [4, 1, 0, 0, 0, 0, 0, 0x61];
    let mut input = greets(b"RFB 003.008\n");
    for step in [
        &READS[..],
        &says(&ALL),
        &looks(1, 100, 80),
        &READS,
        &READS,
        &says(&pointer),
        &says(&key),
        // A clipboard.
        &says(&[6, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]),
        &says(&CHANGES),
        &looks(2, 100, 80),
        &[0xc3],
        &READS,
    ] {
        input.extend(step);
    }
    input
}

fn zrle() -> Vec<u8> {
    // ZRLE, sizes, keys by their place; 16 bits a pixel.
    let encodings = [
        &[2, 0, 0, 3][..],
        &16_i32.to_be_bytes(),
        &(-223_i32).to_be_bytes(),
        &(-258_i32).to_be_bytes(),
    ]
    .concat();
    let format = [
        0, 0, 0, 0, 16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0,
    ];
    let mut input = greets(b"RFB 003.008\n");
    for step in [
        &says(&encodings)[..],
        &says(&ALL),
        &looks(1, 100, 80),
        &READS,
        &READS,
        &says(&format),
        &says(&ALL),
        &looks(3, 100, 80),
        &READS,
        &READS,
        &READS,
        // Another size, and a key.
        &says(&CHANGES),
        &looks(3, 255, 10),
        &READS,
        &says(&[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 30]),
        &says(&ALL),
        &looks(4, 255, 10),
        &READS,
        &READS,
    ] {
        input.extend(step);
    }
    input
}

fn old() -> Vec<u8> {
    [
        says(b"RFB 003.003\n"),
        says(&[0]),
        looks(1, 10, 10),
        says(&ALL),
        looks(1, 10, 10),
    ]
    .concat()
}
