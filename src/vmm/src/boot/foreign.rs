//! Telling a person what the file they took for a kernel really is.

/// How many bytes from the start [`describe`] looks at.
pub const HEAD: usize = 4096;

const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, &[0xff, 0xd8, 0xff], "a JPEG image"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"070701", "an initial RAM disk (cpio archive)"),
    (0, b"!<arch>", "an ar archive or Debian package"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"#!", "a script"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0x38, b"ARM\x64", "a kernel for 64-bit ARM"),
    (0x38, b"RSC\x05", "a kernel for RISC-V"),
    (257, b"ustar", "a tar archive"),
];

/// Names the kind of file that begins with `head`.
pub fn describe(head: &[u8]) -> &'static str {
    if head.is_empty() {
        return "an empty file";
    }
    let signature = SIGNATURES
        .iter()
        .find(|&&(at, magic, _)| head.get(at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, name)) = signature {
        return name;
    }
    if head.iter().all(|&byte| byte == 0) {
        return "nothing but zeroes";
    }
    if head.starts_with(b"MZ") {
        return "a Windows or EFI program without a Linux boot header";
    }
    if head.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) {
        return "a disk image or boot sector";
    }
    if head
        .iter()
        .all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    {
        return "plain text";
    }
    "neither a bzImage nor an ELF file"
}
