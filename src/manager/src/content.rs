//! What an uploaded file really is: checked before it is kept, so that a guest never fails
//! because of an upload that was cut short or was something else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use lodge_api::image::{DiskFormat, ImageKind};
use lodge_api::{ErrorCode, Problem};
use lodge_block::foreign::{self, ImageError, Part};
use lodge_block::format::{self, Format, HEAD_BYTES, PartitionTable};

/// Bytes from the start of a file that tell what it is.
pub(crate) const HEAD: usize = HEAD_BYTES;

/// Files people upload by mistake. Those whose magic is short need more to be told from code.
const FOREIGN: &[(&[u8], &str)] = &[
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"GIF87a", "a GIF picture"),
    (b"GIF89a", "a GIF picture"),
    (b"%PDF-", "a PDF document"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<HTML", "an HTML page"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"!<arch>\n", "a Debian package or archive"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"#!", "a script"),
    (b"\xcf\xfa\xed\xfe", "a macOS program"),
];

/// Compressions a kernel or an initial RAM disk may have, by their magic.
const COMPRESSIONS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x02\x21\x4c\x18", "LZ4"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"BZh", "bzip2"),
    (b"\x5d\0\0", "LZMA"),
    (b"\x89LZO\0\r\n\x1a\n", "LZO"),
];

/// What a complete file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// As it is to be, described for [`lodge_api::image::Image::format`].
    Ready(String),
    /// A disk image that is to be made into a raw one first.
    Foreign(Format),
}

/// Checks a complete file and says what was found.
///
/// # Errors
/// `InvalidContent`, with what it is instead and what to do.
pub(crate) fn check(
    kind: ImageKind,
    declared: Option<DiskFormat>,
    file: &File,
) -> Result<Found, Problem> {
    let read = |error: io::Error| crate::core::internal(format!("reading the upload: {error}"));
    let size = file.metadata().map_err(read)?.len();
    if size == 0 {
        return Err(invalid("the upload is empty").with_hint("send the file as the request's body"));
    }
    let mut head = vec![0; HEAD.min(usize::try_from(size).unwrap_or(HEAD))];
    file.read_exact_at(&mut head, 0).map_err(read)?;
    check_head(kind, declared, &head)?;
    match kind {
        ImageKind::Kernel => kernel(&head, size, file).map(Found::Ready),
        ImageKind::Initrd => initrd(&head).map(Found::Ready),
        ImageKind::Disk => disk(declared, file, size),
        ImageKind::Iso => iso(file, size).map(Found::Ready),
    }
}

/// What can be told from the first bytes: refuses early what cannot become right.
pub(crate) fn check_head(
    kind: ImageKind,
    declared: Option<DiskFormat>,
    head: &[u8],
) -> Result<(), Problem> {
    // Whoever says that it is raw may have anything in its first sector.
    if kind == ImageKind::Disk && declared == Some(DiskFormat::Raw) {
        return Ok(());
    }
    let wanted = match kind {
        ImageKind::Kernel => "a kernel",
        ImageKind::Initrd => "an initial RAM disk",
        ImageKind::Disk => "a disk image",
        ImageKind::Iso => "the image of a CD or DVD",
    };
    if let Some(name) = foreign(head) {
        return Err(invalid(format!("the upload is {name}, not {wanted}"))
            .with_hint("check that you chose the right file"));
    }
    match kind {
        ImageKind::Kernel if !(is_bzimage(head) || is_elf(head) || compression(head).is_some()) => {
            Err(not_a_kernel(head))
        }
        ImageKind::Initrd => initrd(head).map(drop),
        ImageKind::Disk => disk_head(format::detect(head, &[]).format),
        ImageKind::Iso => format::detect(head, &[])
            .require_raw()
            .map_err(|error| invalid(error.to_string()).with_hint(DISK_HINT)),
        ImageKind::Kernel => Ok(()),
    }
}

const DISK_HINT: &str = "upload a raw image; `qemu-img convert -O raw` makes one";

/// Refuses what is neither a raw image nor read here. A descriptor is read for what it names.
fn disk_head(found: Format) -> Result<(), Problem> {
    if found.is_raw() || foreign::is_readable(found) || found == Format::VmdkDescriptor {
        return Ok(());
    }
    Err(
        invalid(format!("the upload is {found}, which is not read here")).with_hint(format!(
            "{}; raw, qcow2, VMDK, VHD and VHDX are read",
            found.remedy()
        )),
    )
}

/// Refuses what has no changes to a disk.
pub(crate) fn check_changes(head: &[u8]) -> Result<(), Problem> {
    match format::detect(head, &[]).format {
        Format::Qcow2 => Ok(()),
        found => Err(
            invalid(format!("the upload is {found}, not a qcow2 of what changed")).with_hint(
                "`lodge snapshot export --since` and `lodge vm backup` make one; a whole disk is uploaded as an image of kind `disk`",
            ),
        ),
    }
}

/// As [`check_changes`], of a complete file.
pub(crate) fn changes(file: &File) -> Result<(), Problem> {
    if detect(file)?.format != Format::Qcow2 {
        return check_changes(&[]);
    }
    let part = Part::whole(file)
        .map_err(|error| crate::core::internal(format!("reading the upload: {error}")))?;
    let opened = foreign::open_changes(part).map(drop);
    opened.map_err(|error| image_problem(&error))
}

/// Refuses what is no archive.
pub(crate) fn check_archive(head: &[u8]) -> Result<(), Problem> {
    match format::detect(head, &[]).format {
        Format::Tar => Ok(()),
        found => Err(
            invalid(format!("the upload is {found}, not an OVA")).with_hint(
                "export the machine as an OVA; a disk alone is uploaded as an image of kind `disk`",
            ),
        ),
    }
}

/// As [`check_archive`], of a complete file, which may be shorter than a head.
pub(crate) fn archive(file: &File) -> Result<(), Problem> {
    let found = detect(file)?.format;
    if found == Format::Tar {
        return Ok(());
    }
    check_archive(&[])
}

/// What an image that cannot be read means to the caller.
pub(crate) fn image_problem(error: &ImageError) -> Problem {
    let text = error.to_string();
    match error {
        ImageError::Host { .. } => crate::core::internal(text),
        _ => invalid(text).with_hint(error.remedy()),
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidContent, detail)
}

fn foreign(head: &[u8]) -> Option<&'static str> {
    FOREIGN
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, name)| *name)
}

fn compression(head: &[u8]) -> Option<&'static str> {
    COMPRESSIONS
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, name)| *name)
}

fn not_a_kernel(head: &[u8]) -> Problem {
    let detected = format::detect(head, &[]);
    let what = match detected.require_raw() {
        Err(other) => format!("the upload is {}, not a kernel", other.found),
        Ok(()) if initrd(head).is_ok() => {
            "the upload is an initial RAM disk, not a kernel".to_owned()
        }
        Ok(()) => "the upload is not a kernel".to_owned(),
    };
    invalid(what).with_hint(
        "upload a bzImage (often named vmlinuz) or an ELF vmlinux for x86-64, plain or compressed",
    )
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The setup header of the Linux boot protocol (Documentation/arch/x86/boot.rst).
fn is_bzimage(head: &[u8]) -> bool {
    head.get(0x202..0x206) == Some(b"HdrS")
}

fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

fn kernel(head: &[u8], size: u64, file: &File) -> Result<String, Problem> {
    if is_bzimage(head) {
        return bzimage(head, size, file);
    }
    if is_elf(head) {
        return elf(head, size);
    }
    // A compressed vmlinux: what is inside is checked at the start of a guest.
    match compression(head) {
        Some(name) => Ok(format!("compressed kernel, {name}")),
        None => Err(not_a_kernel(head)),
    }
}

fn truncated(found: u64, expected: u64) -> Problem {
    invalid(format!(
        "the kernel is cut short: {found} bytes, by its own header {expected}"
    ))
    .with_hint("copy or download the file again")
}

fn bzimage(head: &[u8], size: u64, file: &File) -> Result<String, Problem> {
    let damaged = || invalid("the kernel's setup header is damaged");
    let version = u16_at(head, 0x206).ok_or_else(damaged)?;
    if u16_at(head, 0x1fe) != Some(0xaa55) || version < 0x0204 {
        return Err(damaged().with_hint("only bzImages of Linux 2.6.14 and later can be started"));
    }
    // A zImage, for 512 KiB below 1 MiB.
    if head.get(0x211).ok_or_else(damaged)? & 1 == 0 {
        return Err(invalid("the kernel is a zImage, not a bzImage"));
    }
    let setup = match u64::from(head[0x1f1]) {
        0 => 4,
        sectors => sectors,
    };
    let start = (setup + 1) * 512;
    let paragraphs = u64::from(u32_at(head, 0x1f4).ok_or_else(damaged)?);
    let expected = start + paragraphs * 16;
    // The last paragraph may be filled up with bytes that are not in the file.
    if size + 15 < expected {
        return Err(truncated(size, expected));
    }
    let mut format = "bzImage".to_owned();
    if let Some(release) = release(head, file) {
        format = format!("{format} {release}");
    }
    if version >= 0x0208 {
        let offset = start + u64::from(u32_at(head, 0x248).ok_or_else(damaged)?);
        let length = u64::from(u32_at(head, 0x24c).ok_or_else(damaged)?);
        if offset.saturating_add(length) > size {
            return Err(truncated(size, offset.saturating_add(length)));
        }
        let mut magic = [0; 16];
        if length >= 16 && file.read_exact_at(&mut magic, offset).is_ok() {
            let name = match compression(&magic) {
                Some(name) => name,
                None if is_elf(&magic) => "uncompressed",
                None => "unknown compression",
            };
            format = format!("{format}, {name}");
        }
    }
    Ok(format)
}

/// The release in a bzImage: `6.12.95-cloud-amd64`.
fn release(head: &[u8], file: &File) -> Option<String> {
    let at = u64::from(u16_at(head, 0x20e)?);
    if at == 0 {
        return None;
    }
    let mut text = [0; 80];
    let read = file.read_at(&mut text, at + 0x200).ok()?;
    let word = text[..read]
        .split(|byte| matches!(byte, 0 | b' '))
        .next()
        .filter(|word| !word.is_empty() && word.iter().all(u8::is_ascii_graphic))?;
    Some(String::from_utf8_lossy(word).into_owned())
}

fn elf(head: &[u8], size: u64) -> Result<String, Problem> {
    // ELF-64, "System V ABI", figures 4-3 and 5-1.
    let damaged = || invalid("the kernel's ELF header is damaged");
    if head.get(4..6) != Some(&[2, 1]) || u16_at(head, 18) != Some(62) {
        return Err(
            invalid("the ELF file is not for x86-64").with_hint("upload a 64-bit x86 kernel")
        );
    }
    let kind = u16_at(head, 16).ok_or_else(damaged)?;
    if !matches!(kind, 2 | 3) {
        return Err(invalid(
            "the ELF file is an object or core file, not a kernel",
        ));
    }
    let table = u64_at(head, 32).ok_or_else(damaged)?;
    let entry = u64::from(u16_at(head, 54).ok_or_else(damaged)?);
    let count = u64::from(u16_at(head, 56).ok_or_else(damaged)?);
    if count == 0 || entry < 56 {
        return Err(damaged());
    }
    let mut end = table.saturating_add(entry * count);
    for number in 0..count {
        let at = table.saturating_add(number * entry);
        let Some(at) = usize::try_from(at).ok().filter(|at| at + 56 <= head.len()) else {
            break;
        };
        let offset = u64_at(head, at + 8).ok_or_else(damaged)?;
        let length = u64_at(head, at + 32).ok_or_else(damaged)?;
        end = end.max(offset.saturating_add(length));
    }
    if end > size {
        return Err(truncated(size, end));
    }
    Ok("ELF vmlinux".to_owned())
}

fn initrd(head: &[u8]) -> Result<String, Problem> {
    let magics: [(&[u8], &str); 3] = [
        (b"070701", "cpio"),
        (b"070702", "cpio"),
        (b"070707", "old cpio"),
    ];
    if let Some((_, name)) = magics.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Ok((*name).to_owned());
    }
    if let Some(name) = compression(head) {
        return Ok(format!("{name}-compressed"));
    }
    let what = if is_bzimage(head) || is_elf(head) {
        "the upload is a kernel, not an initial RAM disk"
    } else {
        "the upload is not an initial RAM disk"
    };
    Err(invalid(what).with_hint(
        "upload a cpio archive in newc format, plain or compressed (often named initrd.img)",
    ))
}

fn disk(declared: Option<DiskFormat>, file: &File, size: u64) -> Result<Found, Problem> {
    let detected = detect(file)?.format;
    let format = match declared {
        None => detected,
        Some(DiskFormat::Raw) => Format::Raw,
        Some(DiskFormat::Qcow2) => Format::Qcow2,
        // One that names other files is refused for these.
        Some(DiskFormat::Vmdk) if detected == Format::VmdkDescriptor => detected,
        Some(DiskFormat::Vmdk) => Format::Vmdk,
        Some(DiskFormat::Vhd) => Format::Vhd,
        Some(DiskFormat::Vhdx) => Format::Vhdx,
    };
    if format != Format::Raw && format != detected {
        let detail = format!("the upload is {detected}, not {format} as declared");
        return Err(invalid(detail)
            .with_pointer("?format")
            .with_hint("leave `format` out to have it detected"));
    }
    if format.is_raw() {
        return raw(file, size).map(Found::Ready);
    }
    // Finds early what makes it unreadable.
    let part = Part {
        file,
        start: 0,
        length: size,
    };
    foreign::open(part, format).map_err(|error| image_problem(&error))?;
    Ok(Found::Foreign(format))
}

fn detect(file: &File) -> Result<format::Detected, Problem> {
    format::detect_file(file)
        .map_err(|error| crate::core::internal(format!("reading the upload: {error}")))
}

/// What is on a raw disk of a size that disks have.
fn raw(file: &File, size: u64) -> Result<String, Problem> {
    if !size.is_multiple_of(lodge_block::SECTOR) {
        return Err(invalid(format!(
            "the upload has {size} bytes, which is no multiple of 512: it is cut short or no disk image"
        ))
        .with_hint("copy it again; `truncate -s %512 FILE` fills up the last sector"));
    }
    let detected = detect(file)?;
    // Declared as raw, whatever it looks like.
    let name = if detected.format.is_raw() {
        detected.format.name()
    } else {
        Format::Raw.name()
    };
    Ok(describe(name, detected.contents))
}

/// What is on the raw disk that a foreign image was made into: never another image.
pub(crate) fn describe_raw(file: &File) -> Result<String, Problem> {
    Ok(describe(Format::Raw.name(), detect(file)?.contents))
}

fn describe(name: &str, contents: format::Contents) -> String {
    let mut parts = vec![name.to_owned()];
    parts.extend(contents.partitions.map(|table| {
        match table {
            PartitionTable::Mbr => "MBR",
            PartitionTable::Gpt { .. } => "GPT",
        }
        .to_owned()
    }));
    parts.extend(
        contents
            .filesystem
            .map(|filesystem| filesystem.name().to_owned()),
    );
    parts.join(", ")
}

fn iso(file: &File, size: u64) -> Result<String, Problem> {
    let name = raw(file, size)?;
    match detect(file)?.format {
        Format::Iso => Ok(name),
        _ => Err(invalid("the upload is not the image of a CD or DVD")
            .with_hint("upload an ISO 9660 or UDF image, or choose another kind of image")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn problem(kind: ImageKind, bytes: &[u8]) -> Problem {
        let problem = check(kind, None, &file(bytes)).unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidContent, "{problem}");
        problem
    }

    fn described(kind: ImageKind, bytes: &[u8]) -> String {
        match check(kind, None, &file(bytes)).unwrap() {
            Found::Ready(format) => format,
            Found::Foreign(format) => panic!("{format}"),
        }
    }

    /// The least that passes for a bzImage: setup of one sector, 1 KiB of code, a release.
    fn bzimage() -> Vec<u8> {
        let mut bytes = vec![0; 1024 + 1024];
        bytes[0x1f1] = 1;
        bytes[0x1f4..0x1f8].copy_from_slice(&64_u32.to_le_bytes());
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        bytes[0x211] = 1;
        bytes[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        bytes[0x24c..0x250].copy_from_slice(&512_u32.to_le_bytes());
        bytes[0x300..0x30f].copy_from_slice(b"6.12.95 (build)");
        bytes[1040..1044].copy_from_slice(b"\x02\x21\x4c\x18");
        bytes
    }

    #[test]
    fn kernels_are_described() {
        let format = described(ImageKind::Kernel, &bzimage());
        assert_eq!(format, "bzImage 6.12.95, LZ4");
        let format = described(ImageKind::Kernel, b"\x1f\x8b\x08 and more");
        assert_eq!(format, "compressed kernel, gzip");
    }

    #[test]
    fn a_kernel_cut_short_is_noticed() {
        let whole = bzimage();
        for length in [0x208, 0x211, 1024, 1500, whole.len() - 16] {
            let problem = problem(ImageKind::Kernel, &whole[..length]);
            assert!(
                problem.detail.contains("cut short") || problem.detail.contains("damaged"),
                "{length}: {problem}"
            );
        }
    }

    #[test]
    fn a_picture_is_called_a_picture() {
        let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF";
        for kind in [ImageKind::Kernel, ImageKind::Initrd, ImageKind::Disk] {
            assert!(problem(kind, jpeg).detail.contains("JPEG"));
        }
    }

    #[test]
    fn what_is_not_read_is_refused_with_a_way_out() {
        let mut qed = b"QED\0".to_vec();
        qed.resize(4096, 0);
        let refused = problem(ImageKind::Disk, &qed);
        assert!(refused.detail.contains("QED"));
        assert!(refused.hint.unwrap().contains("qemu-img convert"));
        let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
        qcow2.resize(4096, 0);
        assert!(problem(ImageKind::Disk, &qcow2).detail.contains("damaged"));
        assert!(problem(ImageKind::Iso, &qcow2).detail.contains("qcow2"));
        assert!(problem(ImageKind::Kernel, &qcow2).detail.contains("qcow2"));
        assert!(problem(ImageKind::Disk, &[1; 513]).detail.contains("512"));
        assert_eq!(described(ImageKind::Disk, &[0; 1024]), "raw");
    }

    #[test]
    fn what_is_declared_holds() {
        let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
        qcow2.resize(4096, 0);
        let raw = Some(DiskFormat::Raw);
        let found = check(ImageKind::Disk, raw, &file(&qcow2)).unwrap();
        assert_eq!(found, Found::Ready("raw".to_owned()));
        for declared in [DiskFormat::Vmdk, DiskFormat::Vhd, DiskFormat::Vhdx] {
            let refused = check(ImageKind::Disk, Some(declared), &file(&qcow2)).unwrap_err();
            assert_eq!(refused.pointer.as_deref(), Some("?format"));
            assert!(refused.detail.contains("is a qcow2 image"), "{refused}");
        }
        let descriptor =
            b"# Disk DescriptorFile\ncreateType=\"vmfs\"\nRW 9 VMFS \"web-flat.vmdk\"\n";
        let refused = problem(ImageKind::Disk, descriptor);
        assert!(refused.detail.contains("web-flat.vmdk"), "{refused}");
    }

    #[test]
    fn a_disc_has_a_volume_where_discs_have_one() {
        let mut disc = vec![0; 20 * 2048];
        disc[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
        assert_eq!(described(ImageKind::Iso, &disc), "iso");
        assert!(problem(ImageKind::Iso, &[0; 40960]).detail.contains("CD"));
        assert!(problem(ImageKind::Iso, &disc[..1024]).detail.contains("CD"));
    }

    #[test]
    fn kernel_and_initrd_are_not_mixed_up() {
        let cpio = b"070701000000010000";
        assert_eq!(described(ImageKind::Initrd, cpio), "cpio");
        assert!(
            problem(ImageKind::Kernel, cpio)
                .detail
                .contains("initial RAM disk")
        );
        assert!(
            problem(ImageKind::Initrd, &bzimage())
                .detail
                .contains("kernel")
        );
        assert!(problem(ImageKind::Initrd, b"").detail.contains("empty"));
    }

    #[test]
    fn elf_segments_must_be_in_the_file() {
        let mut bytes = vec![0; 4096];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[72..80].copy_from_slice(&1024_u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&3072_u64.to_le_bytes());
        assert_eq!(described(ImageKind::Kernel, &bytes), "ELF vmlinux");
        assert!(
            problem(ImageKind::Kernel, &bytes[..4000])
                .detail
                .contains("cut short")
        );
        bytes[18] = 183;
        assert!(problem(ImageKind::Kernel, &bytes).detail.contains("x86-64"));
    }

    proptest! {
        #[test]
        fn nothing_uploaded_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..1200), magic in 0..4_usize, kind in 0..4_usize) {
            let (at, magic): (usize, &[u8]) = [(0, &b"\x7fELF\x02\x01"[..]), (0x202, b"HdrS"), (0, b"070701"), (0, b"")][magic];
            if let Some(place) = bytes.get_mut(at..at + magic.len()) {
                place.copy_from_slice(magic);
            }
            let kind = [ImageKind::Kernel, ImageKind::Initrd, ImageKind::Disk, ImageKind::Iso][kind];
            let _ = check(kind, None, &file(&bytes));
        }
    }
}
