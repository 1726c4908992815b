//! VHD and VHDX.

use std::os::unix::fs::{FileExt, MetadataExt};

use super::{Part, Workshop};

#[test]
fn vhd() {
    let workshop = Workshop::new();
    let disk = workshop.raw((9 << 20) + 512 * 3);
    for options in [
        "subformat=dynamic",
        "subformat=fixed",
        "subformat=dynamic,force_size=on",
        "subformat=fixed,force_size=on",
    ] {
        workshop.make(&["-O", "vpc", "-o", options]);
        workshop.assert_is(&disk, options);
    }
}

#[test]
fn vhdx() {
    let workshop = Workshop::new();
    let disk = workshop.raw((19 << 20) + 512 * 3);
    for options in [
        "subformat=dynamic",
        "subformat=fixed",
        "block_size=1M",
        "block_size=256M",
        "block_size=2M,log_size=4M",
        "subformat=dynamic,block_state_zero=off",
    ] {
        let off = options.contains("block_state_zero");
        let whole: &[&str] = if off { &["-S", "0"] } else { &[] };
        workshop.make(&[&["-O", "vhdx", "-o", options], whole].concat());
        workshop.assert_is(&disk, options);
    }
}

/// The entries of bitmaps are between those of blocks.
#[test]
fn vhdx_of_several_chunks() {
    let workshop = Workshop::new();
    let create = [
        "create",
        "-q",
        "-f",
        "vhdx",
        "-o",
        "block_size=1M",
        "image",
        "9G",
    ];
    workshop.run("qemu-img", &create);
    let script = [
        "write -P 1 4095M 2M",
        "write -P 2 8191M 3M",
        "write -P 3 0 512",
    ];
    let mut arguments = vec!["-f", "vhdx"];
    arguments.extend(script.iter().flat_map(|line| ["-c", line]));
    arguments.push("image");
    workshop.run("qemu-io", &arguments);
    let (from, mut image) = workshop.open("image").unwrap();
    let to = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(workshop.path("out"))
        .unwrap();
    super::convert(
        image.as_mut(),
        Part::whole(&from).unwrap(),
        &to,
        1,
        &mut |_| std::ops::ControlFlow::Continue(()),
    )
    .unwrap();
    // `qemu-img compare` would read all of it.
    let written = [
        (0, 3, 512),
        (4095 << 20, 1, 2 << 20),
        (8191 << 20, 2, 3 << 20),
    ];
    let mut place = 0;
    for (start, byte, length) in written {
        let mut found = vec![0; length];
        to.read_exact_at(&mut found, start).unwrap();
        assert!(found == vec![byte; length], "at {start}");
        place += length as u64;
    }
    assert_eq!(to.metadata().unwrap().len(), 9 << 30);
    assert!(to.metadata().unwrap().blocks() * 512 <= place + (64 << 10));
}

#[test]
fn say_what_they_are() {
    let workshop = Workshop::new();
    workshop.raw(1 << 20);
    for (format, kind, text) in [
        ("vpc", "subformat=fixed", "vhd, fixed"),
        ("vpc", "subformat=dynamic", "vhd, dynamic"),
        ("vhdx", "subformat=fixed", "vhdx, fixed"),
        ("vhdx", "subformat=dynamic", "vhdx, dynamic"),
    ] {
        workshop.make(&["-O", format, "-o", kind]);
        assert_eq!(workshop.open("image").unwrap().1.describe(), text);
    }
}
