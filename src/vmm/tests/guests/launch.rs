//! Launches that cannot succeed: each says what is wrong, and none leaves a process behind.

use crate::support::{Guest, Options, code, kvm_missing};
use lodge_vmm_proto::{DiskBus, ExitReason, LaunchError, SpawnError};

crate::guest!(
    stops_at_once,
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "2: hlt",
    "jmp 2b",
);

fn refused(options: Options) -> (LaunchError, String) {
    match Guest::try_start(options) {
        Err(SpawnError::Refused { error, message }) => (error, message),
        Err(other) => panic!("unexpected: {other:?}"),
        Ok(_) => panic!("it started"),
    }
}

fn refused_kernel(kernel: Vec<u8>) -> String {
    let (error, message) = refused(Options::kernel(kernel));
    assert_eq!(error, LaunchError::Kernel, "{message}");
    message
}

#[test]
fn what_is_no_kernel_is_called_by_its_name() {
    if kvm_missing() {
        return;
    }
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0];
    jpeg.resize(100_000, 0x55);
    let mut disk = vec![0; 1 << 20];
    disk[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    disk[0] = 0xeb;
    for (file, name) in [
        (jpeg, "a JPEG image"),
        (Vec::new(), "an empty file"),
        (vec![0; 4096], "nothing but zeroes"),
        (b"#!/bin/sh\n".to_vec(), "a script"),
        (b"hello\n".to_vec(), "plain text"),
        (b"070701000".to_vec(), "an initial RAM disk"),
        (disk, "a disk image or boot sector"),
    ] {
        let message = refused_kernel(file);
        assert!(message.contains(name), "{name}: {message}");
    }
}

#[test]
fn a_truncated_kernel_is_damaged() {
    if kvm_missing() {
        return;
    }
    let kernel = code::kernel(stops_at_once());
    for length in [10, 63, 64, 150, kernel.len() - 1] {
        let message = refused_kernel(kernel[..length].to_vec());
        assert!(message.contains("damaged"), "{length}: {message}");
    }
}

#[test]
fn compressed_kernels_are_unpacked() {
    if kvm_missing() {
        return;
    }
    use std::io::Write;
    let kernel = code::kernel(stops_at_once());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&kernel).unwrap();
    let mut legacy = vec![0x02, 0x21, 0x4c, 0x18];
    let block = lz4_flex::block::compress(&kernel);
    legacy.extend((block.len() as u32).to_le_bytes());
    legacy.extend(block);
    for packed in [
        gzip.finish().unwrap(),
        zstd::bulk::compress(&kernel, 1).unwrap(),
        legacy,
    ] {
        let mut cut = packed.clone();
        cut.truncate(packed.len() - 20);
        let message = refused_kernel(cut);
        assert!(message.contains("damaged"), "{message}");
        let record = Guest::start(Options::kernel(packed)).end();
        assert_eq!(record.reason, ExitReason::GuestPoweroff);
    }
    let message = refused_kernel(b"\xfd7zXZ\0 and so on".to_vec());
    assert!(message.contains("xz"), "{message}");
    let inside = zstd::bulk::compress(b"#!/bin/sh\n", 1).unwrap();
    let message = refused_kernel(inside);
    assert!(message.contains("a script"), "{message}");
}

#[test]
fn what_unpacks_without_end_is_stopped() {
    if kvm_missing() {
        return;
    }
    // A kernel whose code comes after 8 GiB of zeroes, packed small.
    use std::io::Write;
    let mut kernel = code::kernel(stops_at_once());
    kernel[64 + 8..64 + 16].copy_from_slice(&(8_u64 << 30).to_le_bytes());
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    bomb.write_all(&kernel).unwrap();
    bomb.write_all(&vec![0; 64 << 20]).unwrap();
    let message = refused_kernel(bomb.finish().unwrap());
    assert!(message.contains("unpacks to more than"), "{message}");
}

#[test]
fn what_does_not_fit_is_refused() {
    if kvm_missing() {
        return;
    }
    let (error, message) = refused(Options {
        initrd: Some(vec![1; 64 << 20]),
        ..Options::code(stops_at_once())
    });
    assert_eq!(error, LaunchError::Initrd, "{message}");
    let (error, _) = refused(Options {
        cmdline: "x".repeat(2048),
        ..Options::code(stops_at_once())
    });
    assert_eq!(error, LaunchError::Cmdline);
    let (error, _) = refused(Options {
        memory: 1 << 20,
        ..Options::code(stops_at_once())
    });
    assert_eq!(error, LaunchError::Memory);
    let (error, message) = refused(Options {
        memory: 1 << 50,
        ..Options::code(stops_at_once())
    });
    assert_eq!(error, LaunchError::Memory, "{message}");
    // A segment beyond all memory.
    let mut kernel = code::kernel(stops_at_once());
    kernel[64 + 24..64 + 32].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let message = refused_kernel(kernel);
    assert!(message.contains("more memory"), "{message}");
}

#[test]
fn a_disk_that_is_in_use_or_no_disk_is_refused() {
    if kvm_missing() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let open = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap()
    };
    let (error, message) = refused(Options {
        disks: vec![(DiskBus::Virtio, open()), (DiskBus::Virtio, open())],
        ..Options::code(stops_at_once())
    });
    assert_eq!(error, LaunchError::Disk, "{message}");
    let (error, message) = refused(Options {
        disks: vec![(DiskBus::Virtio, std::fs::File::open("/dev/null").unwrap())],
        ..Options::code(stops_at_once())
    });
    assert_eq!(error, LaunchError::Disk, "{message}");
}

#[test]
fn sockets_need_vhost_vsock_and_an_address_of_a_guest() {
    if kvm_missing() {
        return;
    }
    let null = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
    };
    for (cid, problem) in [
        (2, "vsock.cid"),
        (u32::MAX, "vsock.cid"),
        (1000, "not vhost-vsock"),
    ] {
        let (error, message) = refused(Options {
            vsock: Some((null(), cid)),
            ..Options::code(stops_at_once())
        });
        assert_eq!(error, LaunchError::Vsock, "{message}");
        assert!(message.contains(problem), "{message}");
    }
}
