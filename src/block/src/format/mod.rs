//! What a file is, from its first and last bytes.
//!
//! A running guest only ever sees raw disks, and their format is never guessed
//! again: a guest may write anything into its first sector. Detection is for
//! uploads, where it protects people from attaching a qcow2 file as a raw disk.

mod contents;
mod signatures;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub use contents::{Contents, Filesystem, PartitionTable};

/// Bytes from the start of a file that [`detect`] looks at (it takes fewer).
pub const HEAD_BYTES: usize = 68 << 10;

/// Bytes from the end of a file that [`detect`] looks at.
pub const TAIL_BYTES: usize = 512;

/// How the bytes of a file make a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The bytes of the file are the bytes of the disk.
    Raw,
    /// A CD or DVD; also a raw disk if it was made as a hybrid.
    Iso,
    /// QEMU copy-on-write, version 1.
    Qcow,
    /// QEMU copy-on-write, versions 2 and 3.
    Qcow2,
    /// QEMU enhanced disk.
    Qed,
    /// VMware, sparse extent.
    Vmdk,
    /// VMware, text descriptor that points to extents in other files.
    VmdkDescriptor,
    /// Virtual PC and Hyper-V before 2012.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// VirtualBox.
    Vdi,
    /// Parallels.
    Parallels,
    /// Apple disk image.
    Dmg,
    /// A tar archive, such as an OVA.
    Tar,
    /// A ZIP archive.
    Zip,
    /// A 7-Zip archive.
    SevenZip,
    /// Compressed with gzip.
    Gzip,
    /// Compressed with xz.
    Xz,
    /// Compressed with zstd.
    Zstd,
    /// Compressed with bzip2.
    Bzip2,
    /// Compressed with lz4.
    Lz4,
}

/// What [`detect`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detected {
    /// How the bytes make a disk.
    pub format: Format,
    /// What is on the disk; found only where the bytes of the file are those of the disk.
    pub contents: Contents,
}

/// A file that is not what it was said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file is {found}, not a raw disk image; {}", .found.remedy())]
pub struct NotRaw {
    /// What it is.
    pub found: Format,
}

impl Format {
    /// Name as used in the API, e.g. `qcow2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Iso => "iso",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vmdk => "vmdk",
            Self::VmdkDescriptor => "vmdk_descriptor",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Parallels => "parallels",
            Self::Dmg => "dmg",
            Self::Tar => "tar",
            Self::Zip => "zip",
            Self::SevenZip => "7z",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
        }
    }

    /// Whether the file may be used as a raw disk as it is.
    pub fn is_raw(self) -> bool {
        matches!(self, Self::Raw | Self::Iso)
    }

    /// What a person does to get a raw disk out of it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Raw | Self::Iso => "use it as it is",
            Self::Qcow
            | Self::Qcow2
            | Self::Qed
            | Self::Vmdk
            | Self::Vhd
            | Self::Vhdx
            | Self::Vdi
            | Self::Parallels
            | Self::Dmg => "convert it with `qemu-img convert -O raw` first",
            Self::VmdkDescriptor => {
                "convert it, together with the extents it names, with `qemu-img convert -O raw` first"
            }
            Self::Tar | Self::Zip | Self::SevenZip => "unpack it and upload the disk inside",
            Self::Gzip => "decompress it with `gunzip` first",
            Self::Xz => "decompress it with `unxz` first",
            Self::Zstd => "decompress it with `unzstd` first",
            Self::Bzip2 => "decompress it with `bunzip2` first",
            Self::Lz4 => "decompress it with `unlz4` first",
        }
    }
}

impl fmt::Display for Format {
    /// For the middle of a sentence: "a qcow2 image".
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Raw => "a raw disk image",
            Self::Iso => "an ISO 9660 image",
            Self::Qcow => "a qcow version 1 image",
            Self::Qcow2 => "a qcow2 image",
            Self::Qed => "a QED image",
            Self::Vmdk => "a VMDK image",
            Self::VmdkDescriptor => "a VMDK descriptor without its extents",
            Self::Vhd => "a VHD image",
            Self::Vhdx => "a VHDX image",
            Self::Vdi => "a VDI image",
            Self::Parallels => "a Parallels image",
            Self::Dmg => "an Apple disk image",
            Self::Tar => "a tar archive (an OVA is one)",
            Self::Zip => "a ZIP archive",
            Self::SevenZip => "a 7z archive",
            Self::Gzip => "gzip-compressed",
            Self::Xz => "xz-compressed",
            Self::Zstd => "zstd-compressed",
            Self::Bzip2 => "bzip2-compressed",
            Self::Lz4 => "lz4-compressed",
        })
    }
}

impl Detected {
    /// Fails unless the file may be used as a raw disk.
    ///
    /// # Errors
    /// [`NotRaw`], whose text names the format and the way out.
    pub fn require_raw(&self) -> Result<(), NotRaw> {
        if self.format.is_raw() {
            Ok(())
        } else {
            Err(NotRaw { found: self.format })
        }
    }
}

/// Detects the format from up to [`HEAD_BYTES`] of the start of a file and its
/// last [`TAIL_BYTES`] (empty when not known). Never fails: what is nothing else is raw.
pub fn detect(head: &[u8], tail: &[u8]) -> Detected {
    let format = signatures::format(head, tail);
    let contents = if format.is_raw() {
        contents::contents(head)
    } else {
        Contents::default()
    };
    Detected { format, contents }
}

/// Detects the format of an open file.
///
/// # Errors
/// When it cannot be read.
pub fn detect_file(file: &File) -> io::Result<Detected> {
    let size = file.metadata()?.len();
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(size).unwrap_or(HEAD_BYTES))];
    file.read_exact_at(&mut head, 0)?;
    let mut tail = [0; TAIL_BYTES];
    let tail = match size.checked_sub(TAIL_BYTES as u64) {
        Some(offset) => {
            file.read_exact_at(&mut tail, offset)?;
            &tail[..]
        }
        None => &[],
    };
    Ok(detect(&head, tail))
}

#[cfg(test)]
mod tests;
