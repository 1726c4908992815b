//! Signatures of image, archive and compression formats.

use super::Format;

/// A signature at a fixed place.
struct Signature {
    offset: usize,
    bytes: &'static [u8],
    format: Format,
}

const fn at(offset: usize, bytes: &'static [u8], format: Format) -> Signature {
    Signature {
        offset,
        bytes,
        format,
    }
}

/// In the head of the file. Order matters only where two could match at once.
const HEAD: &[Signature] = &[
    at(0, b"QED\0", Format::Qed),
    at(0, b"KDMV", Format::Vmdk),
    // The sparse extents of ESXi.
    at(0, b"COWD", Format::Vmdk),
    // The SE sparse magic number 0xcafebabe as it lies in the file.
    at(0, b"\xbe\xba\xfe\xca\0\0\0\0", Format::Vmdk),
    at(0, b"conectix", Format::Vhd),
    at(0, b"vhdxfile", Format::Vhdx),
    at(0, b"WithoutFreeSpace", Format::Parallels),
    at(0, b"WithouFreSpacExt", Format::Parallels),
    at(64, b"\x7f\x10\xda\xbe", Format::Vdi),
    at(0, b"PK\x03\x04", Format::Zip),
    at(0, b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
    // Deflate is the only method gzip ever had.
    at(0, b"\x1f\x8b\x08", Format::Gzip),
    at(0, b"\xfd7zXZ\0", Format::Xz),
    at(0, b"\x28\xb5\x2f\xfd", Format::Zstd),
    at(0, b"\x04\x22\x4d\x18", Format::Lz4),
    at(257, b"ustar", Format::Tar),
    at(0x8001, b"CD001", Format::Iso),
    at(0x8001, b"NSR0", Format::Iso),
    at(0x8001, b"BEA01", Format::Iso),
];

/// Format of a file by its head and its last sector.
pub(super) fn format(head: &[u8], tail: &[u8]) -> Format {
    if let Some(format) = qcow(head)
        .or_else(|| bzip2(head))
        .or_else(|| vmdk_descriptor(head))
    {
        return format;
    }
    let found = HEAD
        .iter()
        .find(|signature| has(head, signature.offset, signature.bytes))
        .map(|signature| signature.format);
    found.or_else(|| footer(tail)).unwrap_or(Format::Raw)
}

/// Whether `bytes` stand at `offset`; never beyond the end.
pub(super) fn has(data: &[u8], offset: usize, bytes: &[u8]) -> bool {
    data.get(offset..)
        .is_some_and(|rest| rest.starts_with(bytes))
}

fn qcow(head: &[u8]) -> Option<Format> {
    let version = head.strip_prefix(b"QFI\xfb")?.first_chunk::<4>()?;
    Some(match u32::from_be_bytes(*version) {
        1 => Format::Qcow,
        // A later version is no less a qcow2 file.
        _ => Format::Qcow2,
    })
}

/// `BZh`, the block size, and the magic number of a block or of the end.
fn bzip2(head: &[u8]) -> Option<Format> {
    let (level, rest) = head.strip_prefix(b"BZh")?.split_first()?;
    let block = rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17\x72\x45\x38\x50\x90");
    (level.is_ascii_digit() && block).then_some(Format::Bzip2)
}

/// The text file of a VMDK split into several. Editors leave blank lines and a
/// byte order mark in front.
fn vmdk_descriptor(head: &[u8]) -> Option<Format> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = text.trim_ascii_start();
    let title = b"# Disk DescriptorFile";
    text.get(..title.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(title))
        .then_some(Format::VmdkDescriptor)
}

/// Formats whose signature is at the end: fixed VHD (a raw disk and a footer of
/// 512, before 2004 511 bytes), Apple.
fn footer(tail: &[u8]) -> Option<Format> {
    let tail = tail.get(tail.len().saturating_sub(512)..)?;
    if tail.starts_with(b"koly") && tail.len() == 512 {
        return Some(Format::Dmg);
    }
    let vhd = (has(tail, 0, b"conectix") && tail.len() == 512)
        || tail.len() >= 511 && has(tail, tail.len() - 511, b"conectix");
    vhd.then_some(Format::Vhd)
}
