//! What is written is what `qemu-img` finds right and equal, and what is read here again.

use std::ops::ControlFlow;

use super::*;

/// Writes `raw` as an image.
fn write(workshop: &Workshop, format: ExportFormat) -> Vec<u8> {
    let disk = File::open(workshop.path("raw")).unwrap();
    let size = disk.metadata().unwrap().len();
    write_all(workshop, export(disk, format, "web").unwrap(), size)
}

/// Writes `image`, of a disk of `size` bytes.
fn write_all(workshop: &Workshop, mut stream: Box<dyn Export>, size: u64) -> Vec<u8> {
    let (mut image, mut position) = (Vec::new(), 0);
    loop {
        let before = image.len();
        stream.next_piece(&mut image).unwrap();
        if image.len() == before {
            break;
        }
        assert!(
            stream.position() >= position && stream.position() <= size.next_multiple_of(1 << 16)
        );
        position = stream.position();
    }
    assert!(
        stream
            .length()
            .is_none_or(|length| length == image.len() as u64)
    );
    std::fs::write(workshop.path("image"), &image).unwrap();
    image
}

fn check(workshop: &Workshop, format: ExportFormat, name: &str) {
    let image = write(workshop, format);
    workshop.run("qemu-img", &["check", "-f", name, "image"]);
    workshop.run(
        "qemu-img",
        &["compare", "-f", name, "-F", "raw", "image", "raw"],
    );
    let raw = std::fs::read(workshop.path("raw")).unwrap();
    workshop.assert_is(&raw, &format!("{format:?}, {} bytes", image.len()));
}

/// A sparse raw file with data at some places.
fn sparse(workshop: &Workshop, size: u64, places: &[(u64, u64)]) {
    use std::os::unix::fs::FileExt;
    let file = File::create(workshop.path("raw")).unwrap();
    file.set_len(size).unwrap();
    for (at, length) in places {
        let data = content((*length as usize).max(8192));
        file.write_all_at(&data[..*length as usize], *at).unwrap();
    }
}

#[test]
fn full_and_empty() {
    let workshop = Workshop::new();
    for (format, name) in [(ExportFormat::Qcow2, "qcow2"), (ExportFormat::Vmdk, "vmdk")] {
        workshop.raw((5 << 20) + 512 * 3);
        check(&workshop, format, name);
        sparse(&workshop, 3 << 20, &[]);
        check(&workshop, format, name);
        sparse(&workshop, 512, &[(0, 512)]);
        check(&workshop, format, name);
    }
}

/// Data at both sides of where tables begin and end.
#[test]
fn tables_in_all_places() {
    let workshop = Workshop::new();
    let table = 512 << 20;
    let places = [
        (4096, 8192),
        (32 << 20, 70_000),
        (table - 4096, 8192),
        (2 * table - 4096, 4096),
        (3 * table, 4096),
    ];
    sparse(&workshop, 4 * table + 512, &places);
    for (format, name) in [(ExportFormat::Qcow2, "qcow2"), (ExportFormat::Vmdk, "vmdk")] {
        let image = write(&workshop, format);
        assert!(image.len() < 2 << 20, "{name}: {} bytes", image.len());
        workshop.run("qemu-img", &["check", "-f", name, "image"]);
        workshop.run(
            "qemu-img",
            &["compare", "-f", name, "-F", "raw", "image", "raw"],
        );
        let (from, mut image) = workshop.open("image").unwrap();
        let to = File::create(workshop.path("out")).unwrap();
        convert(
            image.as_mut(),
            Part::whole(&from).unwrap(),
            &to,
            2,
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap();
        workshop.run(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "raw", "out", "raw"],
        );
    }
}

/// What changed, read upon or written to what was there before, is what is there now.
#[test]
fn changes() {
    use std::os::unix::fs::FileExt as _;
    let workshop = Workshop::new();
    let table = 512 << 20;
    let before = [
        (0, 300_000),
        (table - 4096, 8192),
        (table + (40 << 20), 1 << 20),
    ];
    for (size, grown) in [
        (table + (64 << 20), 0),
        (table + (64 << 20), (1 << 20) + 512),
    ] {
        sparse(&workshop, size, &before);
        std::fs::rename(workshop.path("raw"), workshop.path("base")).unwrap();
        sparse(&workshop, size + grown, &before);
        let now = File::options()
            .write(true)
            .open(workshop.path("raw"))
            .unwrap();
        now.write_all_at(&[7; 5000], 100_000).unwrap();
        now.write_all_at(&[8; 5000], 30 << 20).unwrap();
        now.write_all_at(&[9; 512], size + grown - 512).unwrap();
        let hole = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        nix::fcntl::fallocate(&now, hole, (table + (40 << 20)) as i64, 1 << 20).unwrap();
        for (name, qcow2) in [("base", false), ("base.qcow2", true)] {
            workshop.run(
                "qemu-img",
                &["convert", "-f", "raw", "-O", "qcow2", "base", "base.qcow2"],
            );
            let [disk, base] = ["raw", "base"].map(|name| File::open(workshop.path(name)).unwrap());
            let backing = Backing {
                name: name.to_owned(),
                qcow2,
            };
            let stream = export_changes(disk, &base, Some(backing)).unwrap();
            let image = write_all(&workshop, stream, size + grown);
            assert!(image.len() < 3 << 20, "{} bytes", image.len());
            workshop.run("qemu-img", &["check", "-f", "qcow2", "image"]);
            workshop.run(
                "qemu-img",
                &["compare", "-f", "qcow2", "-F", "raw", "image", "raw"],
            );
            workshop.apply("image", "base");
        }
        // One image of another is not taken for the whole.
        assert!(workshop.open("image").is_err());
    }
}

#[test]
fn nothing_changed() {
    let workshop = Workshop::new();
    sparse(&workshop, 8 << 20, &[(4096, 1 << 20)]);
    let [disk, base] = ["raw", "raw"].map(|name| File::open(workshop.path(name)).unwrap());
    let stream = export_changes(disk, &base, None).unwrap();
    let image = write_all(&workshop, stream, 8 << 20);
    assert!(image.len() < 512 << 10, "{} bytes", image.len());
    workshop.run("qemu-img", &["check", "-f", "qcow2", "image"]);
    workshop.run(
        "qemu-img",
        &[
            "rebase", "-u", "-f", "qcow2", "-b", "raw", "-F", "raw", "image",
        ],
    );
    workshop.run(
        "qemu-img",
        &["compare", "-f", "qcow2", "-F", "raw", "image", "raw"],
    );
}

#[test]
fn raw() {
    let workshop = Workshop::new();
    let disk = workshop.raw((1 << 20) + 512);
    assert!(write(&workshop, ExportFormat::Raw) == disk);
    sparse(&workshop, 3 << 20, &[(1 << 20, 4096)]);
    let image = write(&workshop, ExportFormat::Raw);
    assert!(image == std::fs::read(workshop.path("raw")).unwrap());
}
