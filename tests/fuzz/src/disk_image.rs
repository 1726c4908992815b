//! Foreign disk images.

use std::fs::File;
use std::io::Write as _;
use std::ops::ControlFlow;

use lodge_block::foreign::{self, Content, Image, Part};
use lodge_block::format::Format;

use crate::file::empty_file;

/// Most bytes that are carried over: enough for every way there is, and soon done.
const MOST: u64 = 4 << 20;

/// A qcow2, of a disk and of what changed on one.
///
/// # Panics
/// When the reader does something wrong.
pub fn qcow2(data: &[u8]) {
    read(data, Format::Qcow2);
    changes(data);
}

/// A VMDK, or the text that describes one.
///
/// # Panics
/// When the reader does something wrong.
pub fn vmdk(data: &[u8]) {
    read(data, Format::Vmdk);
    read(data, Format::VmdkDescriptor);
}

/// A VHD.
///
/// # Panics
/// When the reader does something wrong.
pub fn vhd(data: &[u8]) {
    read(data, Format::Vhd);
}

/// A VHDX, whose headers are too far into the file for a fuzzer: the input has what is at certain places, and where checksums
/// are, they are made right.
///
/// # Panics
/// When the reader does something wrong.
pub fn vhdx(data: &[u8]) {
    read(&vhdx_file(data), Format::Vhdx);
}

fn vhdx_file(data: &[u8]) -> Vec<u8> {
    /// Places and lengths: header, regions, entries of the metadata, the metadata, blocks.
    const PARTS: [(usize, usize); 5] = [
        (64 << 10, 80),
        (192 << 10, 80),
        (2 << 20, 256),
        ((2 << 20) + (64 << 10), 64),
        (3 << 20, 64),
    ];
    /// What has a checksum in its bytes 4 to 8.
    const SUMMED: [(usize, usize); 2] = [(64 << 10, 4 << 10), (192 << 10, 64 << 10)];
    let mut file = vec![0; 4 << 20];
    file[..8].copy_from_slice(b"vhdxfile");
    let mut rest = data;
    for (at, length) in PARTS {
        let taken;
        (taken, rest) = rest.split_at(length.min(rest.len()));
        file[at..at + taken.len()].copy_from_slice(taken);
    }
    for (at, length) in SUMMED {
        file[at + 4..at + 8].fill(0);
        let sum = crc32c::crc32c(&file[at..at + length]);
        file[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    file
}

fn read(data: &[u8], format: Format) {
    let mut file = empty_file().expect("the host has memory");
    file.write_all(data).expect("the host has memory");
    let Ok(mut image) = foreign::open(whole(&file), format) else {
        return;
    };
    if walk(image.as_mut(), data.len() as u64).is_some_and(|bytes| bytes <= MOST) {
        carry_over(&file, format);
    }
}

fn changes(data: &[u8]) {
    let mut file = empty_file().expect("the host has memory");
    file.write_all(data).expect("the host has memory");
    let open = || foreign::open_changes(whole(&file));
    let Ok(mut image) = open() else { return };
    if walk(image.as_mut(), data.len() as u64).is_none_or(|bytes| bytes > MOST) {
        return;
    }
    let mut image = open().expect("it was opened before");
    let to = empty_file().expect("the host has memory");
    to.set_len(512).expect("the host has memory");
    // Damaged data are no reason to panic.
    let _ = foreign::apply(image.as_mut(), whole(&file), &to, 1, &mut |_| {
        ControlFlow::Continue(())
    });
}

fn whole(file: &File) -> Part<'_> {
    Part::whole(file).expect("it is open")
}

/// Goes through all extents; how much that is, unless the image is damaged.
fn walk(image: &mut dyn Image, length: u64) -> Option<u64> {
    let (mut end, mut bytes, mut steps) = (0, 0_u64, 0);
    assert!(!image.describe().is_empty());
    while let Some(extent) = image.next_extent().ok()? {
        assert!(extent.start >= end && extent.length > 0);
        end = extent
            .start
            .checked_add(extent.length)
            .expect("on the disk");
        assert!(end <= image.size() && end.is_multiple_of(512));
        bytes += extent.length;
        match extent.content {
            Content::Plain { at } => assert!(at < length),
            Content::Zeroes => {}
            Content::Packed {
                at,
                length: packed,
                unpacked,
                ..
            } => {
                assert!(at + u64::from(packed) <= length);
                assert!(u64::from(unpacked) >= extent.length && unpacked <= 2 << 20);
            }
        }
        steps += 1;
        assert!(steps <= length * 8, "more extents than a file can describe");
    }
    Some(bytes)
}

fn carry_over(file: &File, format: Format) {
    let mut image = foreign::open(whole(file), format).expect("it was opened before");
    let to = empty_file().expect("the host has memory");
    // Damaged data are no reason to panic.
    let done = foreign::convert(image.as_mut(), whole(file), &to, 1, &mut |now| {
        assert!(now.position <= now.size);
        ControlFlow::Continue(())
    });
    if let Ok(done) = done {
        let length = to.metadata().expect("it is open").len();
        assert_eq!((done.size, done.size), (image.size(), length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise fuzzers would begin at nothing.
    #[test]
    fn seeds_are_images() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (seed, format, bytes) in [
            ("image_qcow2/deflate", Format::Qcow2, 1024),
            ("image_qcow2/zstd", Format::Qcow2, 1024),
            ("image_qcow2/subclusters", Format::Qcow2, 12 * 512),
            ("image_vmdk/sparse", Format::Vmdk, 4096),
            ("image_vmdk/packed", Format::Vmdk, 4096),
            ("image_vhd/dynamic", Format::Vhd, 2048),
            ("image_vhd/fixed", Format::Vhd, 8192),
            ("image_vhdx/dynamic", Format::Vhdx, 1 << 20),
        ] {
            let mut data = std::fs::read(corpus.join(seed)).unwrap();
            if format == Format::Vhdx {
                data = vhdx_file(&data);
            }
            let mut file = empty_file().unwrap();
            file.write_all(&data).unwrap();
            let mut image = foreign::open(whole(&file), format)
                .unwrap_or_else(|error| panic!("{seed}: {error}"));
            let found = walk(image.as_mut(), data.len() as u64);
            assert_eq!(found, Some(bytes), "{seed}");
            let mut image = foreign::open(whole(&file), format).unwrap();
            let to = empty_file().unwrap();
            let part = whole(&file);
            foreign::convert(image.as_mut(), part, &to, 1, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap_or_else(|error| panic!("{seed}: {error}"));
        }
    }
}
