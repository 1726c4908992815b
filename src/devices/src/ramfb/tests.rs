use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::fw_cfg::Source;

/// Two regions with a hole between them, and one at the very end of the address space.
const FIRST: u64 = 0x10_0000;
const SECOND: u64 = 0x40_0000;
const LAST: u64 = u64::MAX - 0xffff;
const REGION: usize = 0x10_0000;

fn ramfb() -> Ramfb {
    let ranges = [
        (0, REGION),
        (FIRST, REGION),
        (SECOND, REGION),
        (LAST, 0x1000),
    ];
    let ranges = ranges.map(|(start, length)| (GuestAddress(start), length));
    Ramfb::new(GuestMemory::from_ranges(&ranges).unwrap())
}

#[derive(Debug, Clone, Copy)]
struct Config {
    address: u64,
    fourcc: [u8; 4],
    width: u32,
    height: u32,
    stride: u32,
}

const SMALL: Config = Config {
    address: 0x1000,
    fourcc: *b"XR24",
    width: 2,
    height: 2,
    stride: 0,
};

impl Config {
    fn bytes(self) -> [u8; CONFIG_BYTES] {
        let mut bytes = [0; CONFIG_BYTES];
        bytes[..8].copy_from_slice(&self.address.to_be_bytes());
        let fourcc = u32::from_le_bytes(self.fourcc);
        let words = [fourcc, 0, self.width, self.height, self.stride];
        for (place, word) in bytes[8..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// A picture as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

fn frame(ramfb: &Ramfb) -> Option<Frame> {
    let scanout = ramfb.scanout()?;
    let (width, height) = scanout.size();
    let pixels = scanout.rows().flatten().collect();
    Some(Frame {
        width,
        height,
        pixels,
    })
}

fn shown(config: Config) -> Option<Frame> {
    let mut ramfb = ramfb();
    ramfb.configure(&config.bytes());
    frame(&ramfb)
}

#[test]
fn shows_nothing_until_told() {
    let mut ramfb = ramfb();
    assert_eq!(frame(&ramfb), None);
    assert_eq!(ramfb.config_bytes(), [0; 28]);
    ramfb.configure(&SMALL.bytes());
    assert_eq!(frame(&ramfb).unwrap().pixels, [0; 4]);
    assert_eq!(ramfb.scanout().unwrap().size(), (2, 2));
    // A bad configuration takes the picture away and can be read back.
    let bad = Config { width: 0, ..SMALL };
    ramfb.configure(&bad.bytes());
    assert_eq!(frame(&ramfb), None);
    assert_eq!(ramfb.config_bytes(), bad.bytes());
    ramfb.configure(&SMALL.bytes());
    assert!(frame(&ramfb).is_some());
    ramfb.reset();
    assert_eq!(frame(&ramfb), None);
    assert_eq!(ramfb.config_bytes(), [0; 28]);
}

#[test]
fn rows_are_read_one_by_one_or_all() {
    let mut ramfb = ramfb();
    let pixels: Vec<u8> = (1..=32).collect();
    ramfb
        .memory
        .write_slice(&pixels, GuestAddress(0x1000))
        .unwrap();
    let padded = Config {
        height: 3,
        stride: 10,
        ..SMALL
    };
    ramfb.configure(&padded.bytes());
    let rows: Vec<Vec<u32>> = ramfb.scanout().unwrap().rows().collect();
    let second = [0x0d_0c_0b, 0x11_10_0f];
    assert_eq!((rows.len(), &rows[1][..]), (3, &second[..]));
    for (y, row) in (0..).zip(rows) {
        let mut pixels = vec![7];
        ramfb.scanout().unwrap().row(y, &mut pixels);
        assert_eq!(pixels, [&[7][..], &row].concat());
    }
    for y in [3, u32::MAX] {
        let mut pixels = Vec::new();
        ramfb.scanout().unwrap().row(y, &mut pixels);
        assert!(pixels.is_empty());
    }
}

fn file() -> (Arc<Mutex<Ramfb>>, RamfbFile) {
    let ramfb = Arc::new(Mutex::new(ramfb()));
    let file = RamfbFile::new(&ramfb);
    (ramfb, file)
}

#[test]
fn a_write_to_the_file_configures() {
    let (ramfb, mut file) = file();
    assert_eq!(file.read(), [0; CONFIG_BYTES]);
    assert!(file.write(0, &SMALL.bytes()));
    assert!(frame(&ramfb.lock().unwrap()).is_some());
    assert_eq!(file.read(), SMALL.bytes());
    let bad = Config {
        width: MAX_SIDE + 1,
        ..SMALL
    };
    assert!(file.write(0, &bad.bytes()), "taken, and shown as nothing");
    assert!(frame(&ramfb.lock().unwrap()).is_none());
    ramfb.lock().unwrap().reset();
    assert_eq!(file.read(), [0; CONFIG_BYTES]);
}

#[test]
fn the_file_may_be_written_in_pieces() {
    for size in 1..CONFIG_BYTES {
        let (ramfb, mut file) = file();
        let bytes = SMALL.bytes();
        for (number, piece) in bytes.chunks(size).enumerate() {
            assert!(file.write(number * size, piece));
        }
        assert!(frame(&ramfb.lock().unwrap()).is_some(), "{size} at a time");
        assert_eq!(file.read(), bytes);
    }
}

#[test]
fn a_write_outside_of_the_file_changes_nothing() {
    let (ramfb, mut file) = file();
    assert!(file.write(0, &SMALL.bytes()));
    for (offset, data) in [
        (27, &[0; 2][..]),
        (28, &[0]),
        (usize::MAX, &[0]),
        (0, &[0; 29]),
    ] {
        assert!(!file.write(offset, data));
    }
    assert!(frame(&ramfb.lock().unwrap()).is_some());
}

#[test]
fn reads_every_format() {
    let mut ramfb = ramfb();
    for (fourcc, memory, expected) in [
        (b"XR24", &[0x33, 0x22, 0x11, 0xff][..], 0x11_2233),
        (b"AR24", &[0x33, 0x22, 0x11, 0x80], 0x11_2233),
        (b"XB24", &[0x11, 0x22, 0x33, 0xff], 0x11_2233),
        (b"AB24", &[0x11, 0x22, 0x33, 0x00], 0x11_2233),
        (b"RG24", &[0x33, 0x22, 0x11], 0x11_2233),
        (b"BG24", &[0x11, 0x22, 0x33], 0x11_2233),
        (b"RG16", &[0xff, 0xff], 0xff_ffff),
        (b"RG16", &[0x00, 0xf8], 0xff_0000),
        (b"RG16", &[0xe0, 0x07], 0x00_ff00),
        (b"RG16", &[0x10, 0x00], 0x00_0084),
    ] {
        let config = Config {
            fourcc: *fourcc,
            width: 1,
            height: 2,
            stride: 10,
            ..SMALL
        };
        ramfb.configure(&config.bytes());
        // The second row, after a gap that is not shown.
        let mut rows = vec![0; 10];
        rows.extend(memory);
        ramfb
            .memory
            .write_slice(&rows, GuestAddress(config.address))
            .unwrap();
        let frame = frame(&ramfb).unwrap();
        assert_eq!(frame.pixels, [0, expected], "{}", fourcc.escape_ascii());
    }
    let unknown = Config {
        fourcc: *b"YUYV",
        ..SMALL
    };
    assert_eq!(shown(unknown), None);
}

#[test]
fn refuses_what_is_too_big() {
    let wide = |width, height| {
        shown(Config {
            width,
            height,
            ..SMALL
        })
    };
    assert!(wide(8192, 1).is_some());
    assert!(wide(1, 8192).is_some());
    for (width, height) in [(8193, 1), (1, 8193), (0, 1), (1, 0), (u32::MAX, u32::MAX)] {
        assert_eq!(wide(width, height), None, "{width} by {height}");
    }
    // 64 MiB of pixels and no more, whatever their size in memory.
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    let mut ramfb = Ramfb::new(memory);
    for (height, good) in [(2048, true), (2049, false)] {
        let config = Config {
            address: 0,
            fourcc: *b"RG16",
            width: 8192,
            height,
            stride: 0,
        };
        ramfb.configure(&config.bytes());
        assert_eq!(ramfb.scanout().is_some(), good);
    }
}

#[test]
fn refuses_what_is_not_in_memory() {
    let at = |address, stride| {
        shown(Config {
            address,
            stride,
            ..SMALL
        })
    };
    // Rows may not overlap.
    assert_eq!(at(0x1000, 7), None);
    assert!(at(0x1000, 8).is_some());
    // The last row ends with its region, padding or not.
    let end = FIRST + REGION as u64;
    assert!(at(end - 16, 8).is_some());
    assert!(at(end - 0x108, 0x100).is_some());
    assert_eq!(at(end - 15, 8), None);
    assert_eq!(at(end - 0x107, 0x100), None);
    // Adjacent regions are one memory; a hole between the rows is none.
    assert!(at(FIRST - 8, 8).is_some());
    assert_eq!(at(FIRST, (SECOND - FIRST) as u32), None);
    // The end of the address space.
    for address in [u64::MAX, u64::MAX - 8, u64::MAX - 15, LAST, SECOND - 1] {
        for stride in [0, 8, u32::MAX] {
            let frame = at(address, stride);
            assert_eq!(frame.is_some(), address == LAST && stride != u32::MAX);
        }
    }
}

#[test]
fn saves_and_restores() {
    let mut ramfb = ramfb();
    ramfb.configure(&SMALL.bytes());
    let saved = ramfb.save();
    let mut other = tests::ramfb();
    other.restore(&saved).unwrap();
    assert_eq!(other.save(), saved);
    assert_eq!(frame(&other), frame(&ramfb));
    let mut bad = saved.clone();
    bad.body["config"] = serde_json::json!([1, 2]);
    assert!(other.restore(&bad).is_err());
    assert!(frame(&other).is_some(), "unchanged");
}

fn interesting() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..300_u32,
        Just(8192),
        Just(8193),
        Just(0x10_0000),
        any::<u32>()
    ]
}

proptest! {
    #[test]
    fn survives_any_configuration(bytes in any::<[u8; 28]>()) {
        let mut ramfb = ramfb();
        ramfb.configure(&bytes);
        frame(&ramfb);
        prop_assert_eq!(ramfb.config_bytes(), bytes);
    }

    #[test]
    fn shows_what_it_takes(
        address in prop_oneof![0..0x60_0000_u64, LAST - 0x1000..=u64::MAX, any::<u64>()],
        fourcc in proptest::sample::select(vec![*b"XR24", *b"AB24", *b"RG24", *b"BG24", *b"RG16"]),
        width in interesting(),
        height in interesting(),
        stride in interesting(),
    ) {
        let mut ramfb = ramfb();
        let config = Config { address, fourcc, width, height, stride };
        ramfb.configure(&config.bytes());
        // What is accepted can always be copied.
        let frame = frame(&ramfb);
        prop_assert_eq!(ramfb.scanout().is_some(), frame.is_some());
        if let Some(frame) = frame {
            prop_assert_eq!((frame.width, frame.height), (width, height));
            prop_assert_eq!(frame.pixels.len() as u64, u64::from(width) * u64::from(height));
        }
        let saved = ramfb.save();
        let mut other = tests::ramfb();
        other.restore(&saved).unwrap();
        prop_assert_eq!(other.save(), saved);
    }
}
