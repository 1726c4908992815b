//! Images that somebody has changed end in an error soon, or are images still; nothing stays of those that do.

use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::*;
use crate::datastore::Datastore;
use crate::format::{Format, detect};

/// Changed images of each kind.
const ROUNDS: usize = 1000;

/// A kind of image, and where what matters lies in it.
struct Kind {
    format: Format,
    arguments: &'static [&'static str],
    places: &'static [Range<usize>],
    /// Makes checksums right again.
    mend: fn(&mut [u8]),
}

const KINDS: &[Kind] = &[
    Kind {
        format: Format::Qcow2,
        arguments: &["-O", "qcow2", "-o", "cluster_size=4k"],
        // The header, both tables' beginnings.
        places: &[0..112, 0..112, 0x3000..0x3040, 0x4000..0x4100],
        mend: |_| (),
    },
    Kind {
        format: Format::Qcow2,
        arguments: &[
            "-c",
            "-O",
            "qcow2",
            "-o",
            "extended_l2=on,cluster_size=16k,compression_type=zstd",
        ],
        places: &[0..112, 0xc000..0xc010, 0x10000..0x10100, 0x14000..0x18000],
        mend: |_| (),
    },
    Kind {
        format: Format::Vmdk,
        arguments: &["-O", "vmdk"],
        places: &[
            0..80,
            0..80,
            0x200..0x400,
            0x3400..0x3410,
            0x3600..0x3700,
            0x1_0000..0x1_0100,
        ],
        mend: |_| (),
    },
    Kind {
        format: Format::Vmdk,
        arguments: &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        places: &[
            0..80,
            0x200..0x400,
            0x3400..0x3410,
            0x3600..0x3700,
            0x10000..0x10200,
        ],
        mend: |_| (),
    },
    Kind {
        format: Format::Vhd,
        arguments: &["-O", "vpc"],
        places: &[0..84, 0x200..0x240, 0x600..0x640, 0x800..0xa00],
        mend: mend_vhd,
    },
    Kind {
        format: Format::Vhdx,
        arguments: &["-O", "vhdx", "-o", "block_size=1M"],
        places: &[
            0x1_0000..0x1_0050,
            0x2_0000..0x2_0050,
            0x3_0000..0x3_0050,
            0x20_0000..0x20_0010,
            0x30_0000..0x30_00c0,
            0x31_0000..0x31_0040,
        ],
        mend: mend_vhdx,
    },
];

fn mend_vhd(image: &mut [u8]) {
    for (at, length, place) in [(0, 512, 64), (512, 1024, 36)] {
        let Some(part) = image.get_mut(at..at + length) else {
            continue;
        };
        part[place..place + 4].fill(0);
        let sum: u32 = part.iter().map(|byte| u32::from(*byte)).sum();
        part[place..place + 4].copy_from_slice(&(!sum).to_be_bytes());
    }
    // The footer is the same as what is at the start.
    let end = image.len() - 512;
    image.copy_within(..512, end);
}

fn mend_vhdx(image: &mut [u8]) {
    for (at, length) in [
        (0x1_0000, 4096),
        (0x2_0000, 4096),
        (0x3_0000, 0x1_0000),
        (0x4_0000, 0x1_0000),
    ] {
        let Some(part) = image.get_mut(at..at + length) else {
            continue;
        };
        part[4..8].fill(0);
        let sum = crc32c::crc32c(part);
        part[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Changes one to three places.
fn change(image: &mut Vec<u8>, kind: &Kind, numbers: &mut Numbers) {
    for _ in 0..=numbers.next() % 3 {
        let place = &kind.places[numbers.next() as usize % kind.places.len()];
        let width = 1 << (numbers.next() % 4);
        let at = place.start + numbers.next() as usize % place.len() / width * width;
        let value = match numbers.next() % 6 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (numbers.next() % 64),
            3 => numbers.next() % 4096,
            4 => image.len() as u64 / 512,
            _ => numbers.next() << 8,
        };
        let bytes = if numbers.next().is_multiple_of(2) {
            value.to_le_bytes()
        } else {
            value.rotate_left(64 - 8 * width as u32).to_be_bytes()
        };
        if let Some(field) = image.get_mut(at..at + width) {
            field.copy_from_slice(&bytes[..width]);
        }
    }
    if !numbers.next().is_multiple_of(16) {
        (kind.mend)(image);
    }
    if numbers.next().is_multiple_of(32) {
        image.truncate(numbers.next() as usize % image.len());
    }
}

/// An image that counts what it is asked.
struct Counted(Box<dyn Image>, u64);

impl Image for Counted {
    fn format(&self) -> Format {
        self.0.format()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn next_extent(&mut self) -> Result<Option<Extent>, ImageError> {
        self.1 += 1;
        let extent = self.0.next_extent()?;
        if let Some(extent) = &extent {
            assert!(extent.length > 0 && extent.length.is_multiple_of(512));
            assert!(extent.start.is_multiple_of(512));
            assert!(extent.start + extent.length <= self.0.size());
        }
        Ok(extent)
    }
}

/// Imports what is in `file`; the extents that it has, or the error.
fn import(datastore: &Datastore, file: &File, format: Format) -> Result<u64, ConvertError> {
    let mut image = Counted(open(Part::whole(file).unwrap(), format)?, 0);
    let new = datastore.new_file().unwrap();
    let bytes = file.metadata().unwrap().len();
    convert(
        &mut image,
        Part::whole(file).unwrap(),
        new.file(),
        1,
        &mut |_| ControlFlow::Continue(()),
    )?;
    // An entry of a table is 2 bytes at least, or of a bitmap one bit.
    assert!(image.1 <= bytes * 8 + 1, "{} steps", image.1);
    Ok(image.1)
}

/// Tries changed images of one kind, all of which must be gone afterwards.
fn try_changed(kind: &Kind) {
    let workshop = Workshop::new();
    let inside = workshop.path("datastore");
    std::fs::create_dir(&inside).unwrap();
    let datastore = Datastore::open(&inside).unwrap();
    workshop.raw(256 << 10);
    workshop.make(kind.arguments);
    let whole = std::fs::read(workshop.path("image")).unwrap();
    let tail = &whole[whole.len() - 512..];
    assert_eq!(detect(&whole, tail).format, kind.format);
    let memory = memfd_create(c"image", MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = File::from(memory);
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut refused = 0;
    for round in 0..ROUNDS {
        let mut image = whole.clone();
        change(&mut image, kind, &mut numbers);
        file.set_len(0).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&image).unwrap();
        let begun = std::time::Instant::now();
        let outcome = import(&datastore, &file, kind.format);
        // A second where the program is optimised and has a processor.
        let took = begun.elapsed().as_secs();
        assert!(took < 10, "{round}: {took} s");
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
        if let Err(error) = outcome {
            assert!(error.to_string().len() < 1000);
            refused += 1;
        }
    }
    // What is changed may not matter: a time, an identity, data.
    println!("{refused} of {ROUNDS} refused");
    assert!(refused > ROUNDS / 4, "only {refused}");
}

#[test]
fn changed_qcow2() {
    KINDS[..2].iter().for_each(try_changed);
}

#[test]
fn changed_vmdk() {
    KINDS[2..4].iter().for_each(try_changed);
}

#[test]
fn changed_vhd() {
    try_changed(&KINDS[4]);
}

#[test]
fn changed_vhdx() {
    try_changed(&KINDS[5]);
}

/// All entries of both tables of a qcow2 refer to the same cluster.
#[test]
fn tables_in_circles() {
    let workshop = Workshop::new();
    workshop.raw(1 << 20);
    workshop.make(&["-O", "qcow2", "-o", "cluster_size=4k"]);
    let mut image = std::fs::read(workshop.path("image")).unwrap();
    let l1 = u64::from_be_bytes(image[40..48].try_into().unwrap()) as usize;
    // A disk as large as the table of the first level, which fills its cluster, allows.
    image[24..32].copy_from_slice(&(512_u64 * 512 * 4096).to_be_bytes());
    image[36..40].copy_from_slice(&512_u32.to_be_bytes());
    let entry = (1_u64 << 63 | l1 as u64).to_be_bytes();
    for at in (l1..l1 + 4096).step_by(8) {
        image[at..at + 8].copy_from_slice(&entry);
    }
    std::fs::write(workshop.path("image"), &image).unwrap();
    let error = workshop.convert().unwrap_err().to_string();
    assert!(error.contains("more than once"), "{error}");
}

/// A frame that says it needs a window of gigabytes gets none.
#[test]
fn windows_that_are_too_large() {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3];
    frame.extend([0; 64]);
    let mut output = vec![0; 65536];
    let mut unpacker = unpack::Unpacker::default();
    assert_eq!(unpacker.unpack(Packing::Zstd, &frame, &mut output), None);
}

proptest! {
    #[test]
    fn noise_is_never_unpacked_into_more(
        input in prop::collection::vec(any::<u8>(), 0..300),
        packing in prop::sample::select(vec![Packing::Deflate, Packing::Zlib, Packing::Zstd]),
    ) {
        let mut output = vec![0; 4096];
        let mut unpacker = unpack::Unpacker::default();
        for _ in 0..2 {
            let found = unpacker.unpack(packing, &input, &mut output);
            prop_assert!(found.is_none_or(|found| found <= 4096));
        }
    }

    #[test]
    fn noise_behind_a_signature(
        bytes in prop::collection::vec(any::<u8>(), 600..3000),
        which in 0..4_usize,
    ) {
        let (format, magic): (Format, &[u8]) = [
            (Format::Qcow2, &b"QFI\xfb\0\0\0\x03"[..]),
            (Format::Vmdk, b"KDMV\x01\0\0\0"),
            (Format::Vhd, b"conectix"),
            (Format::Vhdx, b"vhdxfile"),
        ][which];
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(magic).unwrap();
        file.write_all(&bytes).unwrap();
        prop_assert!(open(Part::whole(&file).unwrap(), format).is_err());
    }
}
