//! Images that need something else are refused, with what and what to do.

use std::os::unix::fs::FileExt;

use super::{ConvertError, ImageError, Workshop};

#[track_caller]
fn assert_refused(workshop: &Workshop, problem: &str, remedy: &str) {
    let error = workshop.refusal("image");
    assert!(matches!(error, ImageError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(problem), "{error}");
    assert!(error.remedy().contains(remedy), "{}", error.remedy());
}

#[test]
fn with_a_backing_file() {
    let workshop = Workshop::new();
    workshop.raw(1 << 20);
    let create = [
        "create", "-q", "-f", "qcow2", "-b", "raw", "-F", "raw", "image",
    ];
    workshop.run("qemu-img", &create);
    assert_refused(&workshop, "backing file \"raw\"", "qemu-img convert");
}

#[test]
fn with_data_elsewhere() {
    let workshop = Workshop::new();
    let options = ["-o", "data_file=data", "image", "1M"];
    workshop.run(
        "qemu-img",
        &[&["create", "-q", "-f", "qcow2"][..], &options].concat(),
    );
    assert_refused(&workshop, "another file", "qemu-img convert");
}

#[test]
fn encrypted() {
    let workshop = Workshop::new();
    let secret = ["--object", "secret,id=s,data=abc"];
    let options = "encrypt.format=aes,encrypt.key-secret=s";
    let create = ["create", "-q", "-f", "qcow2", "-o", options, "image", "1M"];
    workshop.run("qemu-img", &[&create[..1], &secret, &create[1..]].concat());
    assert_refused(&workshop, "encrypted", "key");
    // LUKS. Its own way to make one measures the processor first, and gives up on a busy machine.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(workshop.path("image"));
    file.unwrap()
        .write_all_at(&2_u32.to_be_bytes(), 32)
        .unwrap();
    assert_refused(&workshop, "encrypted", "key");
}

/// Marks in the features of a qcow2 header.
#[test]
fn with_unknown_or_bad_marks() {
    let workshop = Workshop::new();
    for (bits, problem) in [(2_u64, "marked as damaged"), (1 << 60, "not known here")] {
        workshop.raw(1 << 20);
        workshop.make(&["-O", "qcow2"]);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(workshop.path("image"));
        file.unwrap().write_all_at(&bits.to_be_bytes(), 72).unwrap();
        assert_refused(&workshop, problem, "qemu-img");
    }
    // Dirty means wrong reference counts, which a reader does not need.
    let disk = workshop.raw(1 << 20);
    workshop.make(&["-O", "qcow2", "-o", "lazy_refcounts=on"]);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(workshop.path("image"));
    file.unwrap()
        .write_all_at(&1_u64.to_be_bytes(), 72)
        .unwrap();
    workshop.assert_is(&disk, "dirty");
}

#[test]
fn in_several_files() {
    let workshop = Workshop::new();
    workshop.raw(1 << 20);
    for (kind, extent) in [
        ("monolithicFlat", "image-flat"),
        ("twoGbMaxExtentFlat", "image-f001"),
        ("twoGbMaxExtentSparse", "image-s001"),
    ] {
        workshop.make(&["-O", "vmdk", "-o", &format!("subformat={kind}")]);
        assert_refused(
            &workshop,
            &format!("\"{kind}\", whose data are in \"{extent}"),
            "OVA",
        );
    }
    std::fs::rename(workshop.path("image-s001"), workshop.path("image")).unwrap();
    assert_refused(&workshop, "one of several extents", "DESCRIPTOR");
    let create = ["create", "-q", "-f", "vmdk", "base.vmdk", "1M"];
    workshop.run("qemu-img", &create);
    let child = [
        "create",
        "-q",
        "-f",
        "vmdk",
        "-b",
        "base.vmdk",
        "-F",
        "vmdk",
        "child.vmdk",
    ];
    workshop.run("qemu-img", &child);
    std::fs::rename(workshop.path("child.vmdk"), workshop.path("image")).unwrap();
    assert_refused(&workshop, "parent \"base.vmdk\"", "OVA");
}

#[test]
fn cut_short() {
    let workshop = Workshop::new();
    workshop.raw(4 << 20);
    for (format, options) in [
        ("qcow2", "cluster_size=64k"),
        ("qcow2", "extended_l2=on"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic"),
        ("vhdx", "subformat=dynamic"),
        ("vhdx", "subformat=fixed"),
    ] {
        workshop.make(&["-O", format, "-o", options]);
        let path = workshop.path("image");
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length / 2).unwrap();
        let error = workshop.convert().unwrap_err();
        let ConvertError::Image(error) = error else {
            panic!("{format} {options}: {error}");
        };
        assert!(
            matches!(error, ImageError::CutShort { .. }),
            "{format} {options}: {error}"
        );
        assert!(error.remedy().contains("again"));
    }
}
