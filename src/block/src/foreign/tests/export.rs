//! What is written is what `qemu-img` finds right and equal, and what is read here again.

use std::ops::ControlFlow;

use super::*;

/// Writes `raw` as an image.
fn write(workshop: &Workshop, format: ExportFormat) -> Vec<u8> {
    let disk = File::open(workshop.path("raw")).unwrap();
    let size = disk.metadata().unwrap().len();
    let mut stream = export(disk, format, "web").unwrap();
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

#[test]
fn raw() {
    let workshop = Workshop::new();
    let disk = workshop.raw((1 << 20) + 512);
    assert!(write(&workshop, ExportFormat::Raw) == disk);
    sparse(&workshop, 3 << 20, &[(1 << 20, 4096)]);
    let image = write(&workshop, ExportFormat::Raw);
    assert!(image == std::fs::read(workshop.path("raw")).unwrap());
}
