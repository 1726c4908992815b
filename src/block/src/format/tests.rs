//! Detection against files made by `qemu-img` and other tools, and against noise.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program)
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(status.success(), "{program} {arguments:?}");
}

fn detect_path(path: &Path) -> Detected {
    detect_file(&File::open(path).unwrap()).unwrap()
}

fn made_by_qemu(format: &str, options: Option<&str>) -> Format {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut arguments = vec!["create", "-q", "-f", format];
    if let Some(options) = options {
        arguments.extend(["-o", options]);
    }
    arguments.extend([path.to_str().unwrap(), "16M"]);
    run("qemu-img", &arguments);
    detect_path(&path).format
}

#[test]
fn agrees_with_qemu_img() {
    for (format, options, expected) in [
        ("raw", None, Format::Raw),
        ("qcow", None, Format::Qcow),
        ("qcow2", None, Format::Qcow2),
        ("qcow2", Some("compat=0.10"), Format::Qcow2),
        (
            "qcow2",
            Some("compat=1.1,cluster_size=2M,extended_l2=on"),
            Format::Qcow2,
        ),
        ("qed", None, Format::Qed),
        ("vdi", None, Format::Vdi),
        ("vdi", Some("static=on"), Format::Vdi),
        ("vhdx", None, Format::Vhdx),
        ("vhdx", Some("subformat=fixed"), Format::Vhdx),
        ("vpc", None, Format::Vhd),
        ("vpc", Some("subformat=fixed"), Format::Vhd),
        ("vmdk", None, Format::Vmdk),
        ("vmdk", Some("subformat=streamOptimized"), Format::Vmdk),
        (
            "vmdk",
            Some("subformat=monolithicFlat"),
            Format::VmdkDescriptor,
        ),
        (
            "vmdk",
            Some("subformat=twoGbMaxExtentSparse"),
            Format::VmdkDescriptor,
        ),
        ("parallels", None, Format::Parallels),
    ] {
        let found = made_by_qemu(format, options);
        assert_eq!(found, expected, "{format} {options:?}");
        assert_eq!(found.is_raw(), format == "raw");
    }
}

#[test]
fn knows_compressed_files_and_archives() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("disk"), vec![0x5a; 100_000]).unwrap();
    run("gzip", &["-kf", &path("disk")]);
    assert_eq!(
        detect_path(Path::new(&path("disk.gz"))).format,
        Format::Gzip
    );
    let (tar, here) = (path("disk.tar"), path(""));
    run("tar", &["-cf", &tar, "-C", &here, "disk"]);
    assert_eq!(detect_path(Path::new(&tar)).format, Format::Tar);
    for (head, expected) in [
        (&b"\xfd7zXZ\0\0\x04"[..], Format::Xz),
        (b"\x28\xb5\x2f\xfd\x24\x00", Format::Zstd),
        (b"BZh91AY&SY", Format::Bzip2),
        (b"BZh9nothing like it", Format::Raw),
        (b"\x04\x22\x4d\x18", Format::Lz4),
        (b"PK\x03\x04", Format::Zip),
        (b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
        (b"COWD\x01\0\0\0", Format::Vmdk),
        (b"\n # disk descriptorfile", Format::VmdkDescriptor),
        (b"# Disk Descriptor", Format::Raw),
        (
            b"\r\n# Disk DescriptorFile\nversion=1",
            Format::VmdkDescriptor,
        ),
        (b"QFI\xfb\0\0\0\x01", Format::Qcow),
        (b"QFI\xfb", Format::Raw),
    ] {
        assert_eq!(detect(head, &[]).format, expected, "{head:?}");
    }
}

#[test]
fn looks_at_the_end() {
    let mut tail = [0; TAIL_BYTES];
    tail[..8].copy_from_slice(b"conectix");
    assert_eq!(detect(&[], &tail).format, Format::Vhd);
    tail.rotate_right(1);
    assert_eq!(detect(&[], &tail).format, Format::Vhd);
    tail.rotate_right(1);
    assert_eq!(detect(&[], &tail).format, Format::Raw);
    tail[..4].copy_from_slice(b"koly");
    assert_eq!(detect(&[], &tail).format, Format::Dmg);
}

/// A file of 64 MiB on which `program arguments FILE` was run.
fn formatted(program: &str, arguments: &[&str]) -> Detected {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let mut arguments = arguments.to_vec();
    arguments.push(file.path().to_str().unwrap());
    run(program, &arguments);
    detect_path(file.path())
}

#[test]
fn knows_what_is_on_a_raw_disk() {
    let found = formatted("mkfs.ext4", &["-qF"]);
    assert_eq!(found.format, Format::Raw);
    assert_eq!(found.contents.filesystem, Some(Filesystem::Ext));
    assert_eq!(found.contents.partitions, None);
    let swap = formatted("mkswap", &["-q"]);
    assert_eq!(swap.contents.filesystem, Some(Filesystem::Swap));
    assert!(detect(&[0; HEAD_BYTES], &[0; 512]).contents.is_empty());
}

#[test]
fn knows_partition_tables() {
    // As fdisk writes them: one Linux partition, and for GPT the protective entry.
    let mut head = vec![0; 8192];
    head[510..512].copy_from_slice(b"\x55\xaa");
    head[446 + 4] = 0x83;
    head[446 + 8..446 + 16].copy_from_slice(b"\0\x08\0\0\0\xf8\x01\0");
    let mbr = detect(&head, &[]).contents;
    assert_eq!(mbr.partitions, Some(PartitionTable::Mbr));
    head[446 + 4] = 0xee;
    for sector in [4096, 512] {
        head[sector..sector + 8].copy_from_slice(b"EFI PART");
        let sector = sector as u32;
        let gpt = detect(&head, &[]).contents;
        assert_eq!(gpt.partitions, Some(PartitionTable::Gpt { sector }));
        assert_eq!(gpt.filesystem, None);
    }
}

#[test]
fn a_boot_sector_is_no_partition_table() {
    let mut head = vec![0; 4096];
    head[510..512].copy_from_slice(b"\x55\xaa");
    head[0x36..0x3e].copy_from_slice(b"FAT16   ");
    head[446 + 4] = 6;
    head[446 + 12] = 1;
    let contents = detect(&head, &[]).contents;
    assert_eq!(contents.filesystem, Some(Filesystem::Fat));
    assert_eq!(contents.partitions, None);
    head[0x36..0x3e].fill(0);
    let contents = detect(&head, &[]).contents;
    assert_eq!(contents.partitions, Some(PartitionTable::Mbr));
    head[446 + 16] = 0x13;
    assert_eq!(detect(&head, &[]).contents.partitions, None);
}

#[test]
fn says_what_to_do() {
    let refused = detect(b"QFI\xfb\0\0\0\x03", &[]).require_raw().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the file is a qcow2 image, not a raw disk image; convert it with `qemu-img convert -O raw` first"
    );
    detect(b"", b"").require_raw().unwrap();
}

#[test]
fn short_files_are_raw() {
    let mut file = tempfile::tempfile().unwrap();
    assert_eq!(detect_file(&file).unwrap().format, Format::Raw);
    file.write_all(b"QFI\xfb\0\0\0\x02").unwrap();
    assert_eq!(detect_file(&file).unwrap().format, Format::Qcow2);
}

proptest! {
    #[test]
    fn noise_never_panics(
        head in prop::collection::vec(any::<u8>(), 0..2048),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let found = detect(&head, &tail);
        prop_assert!(found.contents.is_empty() || found.format.is_raw());
    }

    #[test]
    fn signatures_cut_anywhere_never_panic(
        start in prop::sample::select(vec![
            &b"QFI\xfb\0\0\0\x02"[..], b"BZh91AY&SY", b"# Disk DescriptorFile", b"KDMV", b"conectix",
        ]),
        cut in 0..24_usize,
        offset in 0..520_usize,
    ) {
        let mut data = vec![0; 512];
        data.splice(offset.min(512).., start.iter().copied().take(cut));
        detect(&data, &data);
        detect(&start[..cut.min(start.len())], &data[..offset.min(data.len())]);
    }
}
