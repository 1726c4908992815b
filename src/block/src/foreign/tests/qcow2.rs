//! qcow2 with every option of `qemu-img`.

use std::fs::File;
use std::ops::ControlFlow;

use super::{Part, Workshop, apply, open_changes};

/// No whole number of clusters of most sizes.
const SIZE: usize = (3 << 20) + 512 * 7;

fn with(workshop: &Workshop, disk: &[u8], options: &str, more: &[&str]) {
    let mut arguments = vec!["-O", "qcow2", "-o", options];
    arguments.extend(more);
    workshop.make(&arguments);
    workshop.assert_is(disk, &format!("{options} {more:?}"));
}

#[test]
fn all_versions_and_sizes_of_clusters() {
    let workshop = Workshop::new();
    let disk = workshop.raw(SIZE);
    for bits in 9..=21 {
        let size = 1_u32 << bits;
        with(
            &workshop,
            &disk,
            &format!("compat=0.10,cluster_size={size}"),
            &[],
        );
        with(
            &workshop,
            &disk,
            &format!("compat=1.1,cluster_size={size}"),
            &[],
        );
    }
}

#[test]
fn compressed() {
    let workshop = Workshop::new();
    let disk = workshop.raw(SIZE);
    for size in ["512", "4k", "64k", "2M"] {
        for packing in [
            "compression_type=zlib",
            "compression_type=zstd",
            "compat=0.10",
        ] {
            with(
                &workshop,
                &disk,
                &format!("{packing},cluster_size={size}"),
                &["-c"],
            );
        }
    }
}

#[test]
fn subclusters() {
    let workshop = Workshop::new();
    let disk = workshop.raw(SIZE);
    for size in ["16k", "64k", "2M"] {
        for packing in ["zlib", "zstd"] {
            let options = format!("extended_l2=on,cluster_size={size},compression_type={packing}");
            with(&workshop, &disk, &options, &[]);
            with(&workshop, &disk, &options, &["-c"]);
        }
    }
}

#[test]
fn preallocated_and_counted() {
    let workshop = Workshop::new();
    let disk = workshop.raw(SIZE);
    for options in [
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
        "preallocation=metadata,extended_l2=on",
        "preallocation=metadata,compat=0.10",
        "lazy_refcounts=on",
        "refcount_bits=1",
        "refcount_bits=64",
    ] {
        with(&workshop, &disk, options, &[]);
    }
}

/// What guests do to an image: writes, zeroes, discards, snapshots.
#[test]
fn used_by_guests() {
    const SCRIPT: &[&str] = &[
        "write -P 7 100k 300k",
        "write -z 128k 64k",
        "write -z -u 256k 64k",
        "write -P 9 131072 512",
        "discard 320k 64k",
        "write -P 3 1M 512",
        "write -P 4 2999k 1k",
    ];
    let workshop = Workshop::new();
    for options in [
        "compat=0.10",
        "compat=1.1",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=4k",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=2M",
        "compression_type=zstd",
    ] {
        for compressed in [false, true] {
            workshop.raw(SIZE);
            let mut arguments = vec!["-O", "qcow2", "-o", options];
            arguments.extend(compressed.then_some("-c"));
            workshop.make(&arguments);
            workshop.run("qemu-img", &["snapshot", "-c", "before", "image"]);
            let mut arguments = vec!["-f", "qcow2"];
            arguments.extend(SCRIPT.iter().flat_map(|line| ["-c", line]));
            arguments.push("image");
            workshop.run("qemu-io", &arguments);
            workshop.run("qemu-img", &["convert", "-O", "raw", "image", "raw"]);
            let disk = std::fs::read(workshop.path("raw")).unwrap();
            workshop.assert_is(&disk, &format!("{options} {compressed}"));
        }
    }
}

#[test]
fn says_what_it_is() {
    let workshop = Workshop::new();
    workshop.raw(1 << 20);
    workshop.make(&["-O", "qcow2", "-o", "compression_type=zstd"]);
    assert_eq!(
        workshop.open("image").unwrap().1.describe(),
        "qcow2 v3, zstd"
    );
    workshop.make(&["-O", "qcow2", "-o", "compat=0.10"]);
    assert_eq!(workshop.open("image").unwrap().1.describe(), "qcow2 v2");
}

/// Zeroes of an image of changes are told from what it does not have, in every way there is to write them.
#[test]
fn zeroes_upon_something() {
    let workshop = Workshop::new();
    workshop.raw(SIZE);
    std::fs::write(workshop.path("base"), vec![0x77; SIZE - 512]).unwrap();
    for options in [
        "compat=1.1",
        "compat=1.1,cluster_size=512",
        "compat=1.1,cluster_size=2M",
        "compat=0.10",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=2M",
    ] {
        for more in [&[][..], &["-c"]] {
            let mut arguments = vec!["-O", "qcow2", "-B", "base", "-F", "raw", "-o", options];
            arguments.extend(more);
            workshop.make(&arguments);
            assert!(workshop.open("image").is_err(), "it is not whole");
            workshop.apply("image", "base");
        }
    }
}

#[test]
fn changes_of_a_smaller_disk_are_refused() {
    let workshop = Workshop::new();
    workshop.raw(SIZE);
    workshop.make(&["-O", "qcow2"]);
    let from = File::open(workshop.path("image")).unwrap();
    let part = Part::whole(&from).unwrap();
    let mut changes = open_changes(part).unwrap();
    let to = File::create(workshop.path("out")).unwrap();
    to.set_len(SIZE as u64 + 512).unwrap();
    let refused = apply(changes.as_mut(), part, &to, 1, &mut |_| {
        ControlFlow::Continue(())
    });
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("3149312"), "{text}");
    assert_eq!(to.metadata().unwrap().len(), SIZE as u64 + 512);
}
