//! What filesystem is on a device, and its label: read from the superblock.
//!
//! The media are untrusted (anybody's USB stick): every offset is checked, and reads are bounded.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Which one.
    pub kind: FilesystemKind,
    /// Its label; empty when it has none.
    pub label: String,
    /// Its identifier in the filesystem's own form: a UUID, or eight hexadecimal digits on FAT; empty on ISO 9660.
    pub uuid: String,
}

/// The filesystems that are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilesystemKind {
    /// XFS.
    Xfs,
    /// ext2, ext3 or ext4; the kernel's ext4 driver mounts all three.
    Ext4,
    /// FAT12, FAT16 or FAT32.
    Vfat,
    /// ISO 9660, with or without extensions.
    Iso9660,
}

impl FilesystemKind {
    /// The kernel's name for it, for mount(2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
            Self::Vfat => "vfat",
            Self::Iso9660 => "iso9660",
        }
    }
}

/// Looks what is on a device or in a file; `None` when it is nothing that is recognised.
///
/// # Errors
/// When the device cannot be opened or read; `NotFound` and `ENOMEDIUM` are what empty drives give.
pub fn probe(path: &Path) -> io::Result<Option<Filesystem>> {
    let file = File::open(path)?;
    // Strongest magic first. A hybrid ISO image also begins with a boot sector, but not with a FAT one.
    for probe in [xfs, ext, iso9660, vfat] {
        if let Some(found) = probe(&file)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Reads `N` bytes at `offset`; `None` past the end.
fn read<const N: usize>(file: &File, offset: u64) -> io::Result<Option<[u8; N]>> {
    let mut buffer = [0; N];
    match file.read_exact_at(&mut buffer, offset) {
        Ok(()) => Ok(Some(buffer)),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// XFS Algorithms & Data Structures, "Superblocks": magic at 0, UUID at 32, label at 108.
fn xfs(file: &File) -> io::Result<Option<Filesystem>> {
    let Some(block) = read::<512>(file, 0)? else {
        return Ok(None);
    };
    Ok((block[..4] == *b"XFSB").then(|| Filesystem {
        kind: FilesystemKind::Xfs,
        label: text(&block[108..120]),
        uuid: uuid(&block[32..48]),
    }))
}

/// ext4 kernel documentation, "Super Block": at 1024; magic at 0x38, UUID at 0x68, label at 0x78.
fn ext(file: &File) -> io::Result<Option<Filesystem>> {
    let Some(block) = read::<512>(file, 1024)? else {
        return Ok(None);
    };
    // The magic is short: the block size, 2^(10+n) with n at most 6, makes it sure.
    let is_ext = block[0x38..0x3a] == [0x53, 0xef] && u32le(&block[0x18..]) <= 6;
    Ok(is_ext.then(|| Filesystem {
        kind: FilesystemKind::Ext4,
        label: text(&block[0x78..0x88]),
        uuid: uuid(&block[0x68..0x78]),
    }))
}

/// ECMA-119 section 8.4: the primary volume descriptor is in sector 16; identifier at 40.
fn iso9660(file: &File) -> io::Result<Option<Filesystem>> {
    let Some(block) = read::<512>(file, 16 * 2048)? else {
        return Ok(None);
    };
    Ok((block[..7] == *b"\x01CD001\x01").then(|| Filesystem {
        kind: FilesystemKind::Iso9660,
        label: text(&block[40..72]),
        uuid: String::new(),
    }))
}

/// Microsoft FAT specification 1.03: the boot sector.
fn vfat(file: &File) -> io::Result<Option<Filesystem>> {
    let Some(boot) = read::<512>(file, 0)? else {
        return Ok(None);
    };
    let Some(fat) = Fat::parse(&boot) else {
        return Ok(None);
    };
    let in_root = root_label(file, &fat)?;
    Ok(Some(Filesystem {
        kind: FilesystemKind::Vfat,
        // Windows changes only the entry in the root directory; "NO NAME" is what formatters write for none.
        label: in_root.unwrap_or_else(|| {
            if fat.label == "NO NAME" {
                String::new()
            } else {
                fat.label
            }
        }),
        uuid: format!("{:04X}-{:04X}", fat.serial >> 16, fat.serial & 0xffff),
    }))
}

/// What is needed of a FAT boot sector.
struct Fat {
    label: String,
    serial: u32,
    root_offset: u64,
    /// Bytes of the root directory that are looked at.
    root_len: u64,
}

impl Fat {
    fn parse(boot: &[u8; 512]) -> Option<Self> {
        let sector = u64::from(u16le(&boot[11..]));
        let cluster = u64::from(boot[13]);
        let reserved = u64::from(u16le(&boot[14..]));
        let fats = u64::from(boot[16]);
        let root_entries = u64::from(u16le(&boot[17..]));
        let plausible = boot[510..] == [0x55, 0xaa]
            && matches!(boot[0], 0xeb | 0xe9)
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && cluster.is_power_of_two()
            && reserved > 0
            && matches!(fats, 1 | 2)
            && (boot[21] == 0xf0 || boot[21] >= 0xf8);
        if !plausible {
            return None;
        }
        let fat_sectors = match u16le(&boot[22..]) {
            0 => u64::from(u32le(&boot[36..])),
            short => u64::from(short),
        };
        let after_fats = reserved.checked_add(fats.checked_mul(fat_sectors)?)?;
        // FAT32 has no fixed root directory: it is a chain of clusters, of which the first is enough.
        let (tail, root_sector, root_len) = if root_entries == 0 {
            let first = u64::from(u32le(&boot[44..])).checked_sub(2)?;
            (
                64,
                after_fats.checked_add(first.checked_mul(cluster)?)?,
                cluster * sector,
            )
        } else {
            (36, after_fats, root_entries * 32)
        };
        let signed = boot[tail + 2] == 0x29;
        Some(Self {
            label: if signed {
                text(&boot[tail + 7..tail + 18])
            } else {
                String::new()
            },
            serial: if signed { u32le(&boot[tail + 3..]) } else { 0 },
            root_offset: root_sector.checked_mul(sector)?,
            root_len,
        })
    }
}

/// The most of a root directory that is searched, in bytes.
const ROOT_LIMIT: u64 = 64 * 1024;

/// The volume label entry of the root directory: attribute 8 without the read-only, hidden and system bits that
/// make it part of a long name.
fn root_label(file: &File, fat: &Fat) -> io::Result<Option<String>> {
    let mut offset = 0;
    while offset < fat.root_len.min(ROOT_LIMIT) {
        let Some(at) = fat.root_offset.checked_add(offset) else {
            return Ok(None);
        };
        let Some(sector) = read::<512>(file, at)? else {
            return Ok(None);
        };
        for entry in sector.chunks_exact(32) {
            match entry[0] {
                0 => return Ok(None),
                0xe5 => {}
                _ if entry[11] & 0x18 == 0x08 && entry[11] & 0x0f != 0x0f => {
                    return Ok(Some(text(&entry[..11])));
                }
                _ => {}
            }
        }
        offset += 512;
    }
    Ok(None)
}

/// A label: up to the first NUL, without padding.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|b| *b == 0).next().unwrap_or_default();
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    text.trim().to_owned()
}

/// Sixteen bytes in the usual form 8-4-4-4-12.
fn uuid(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice(bytes).map_or_else(|_| String::new(), |uuid| uuid.to_string())
}

fn u16le(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn u32le(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A sparse file of `size` bytes, formatted by a command that gets its path at the end.
    fn formatted(size: u64, command: &[&str]) -> Option<Filesystem> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let output = Command::new(command[0])
            .args(&command[1..])
            .arg(file.path())
            .output();
        match output {
            Ok(output) => assert!(output.status.success(), "{command:?}: {output:?}"),
            Err(e) => {
                eprintln!("skipped: {}: {e}", command[0]);
                return None;
            }
        }
        Some(probe(file.path()).unwrap().expect("a filesystem"))
    }

    fn expect(found: Option<Filesystem>, kind: FilesystemKind, label: &str) {
        if let Some(found) = found {
            assert_eq!((found.kind, found.label.as_str()), (kind, label));
        }
    }

    #[test]
    fn real_formatters() {
        expect(
            formatted(320 << 20, &["mkfs.xfs", "-q", "-L", "lodge-data"]),
            FilesystemKind::Xfs,
            "lodge-data",
        );
        expect(
            formatted(8 << 20, &["mke2fs", "-q", "-t", "ext4", "-L", "lodge-data"]),
            FilesystemKind::Ext4,
            "lodge-data",
        );
        for bits in ["12", "16", "32"] {
            let size = if bits == "12" { 8 << 20 } else { 64 << 20 };
            let found = formatted(
                size,
                &[
                    "mkfs.vfat",
                    "-F",
                    bits,
                    "-n",
                    "LODGE-SEED",
                    "-i",
                    "12ab34cd",
                ],
            );
            if let Some(found) = &found {
                assert_eq!(found.uuid, "12AB-34CD");
            }
            expect(found, FilesystemKind::Vfat, "LODGE-SEED");
        }
        expect(formatted(8 << 20, &["mkfs.vfat"]), FilesystemKind::Vfat, "");
    }

    #[test]
    fn an_iso_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("seed.toml"), "").unwrap();
        let image = dir.path().join("seed.iso");
        let made = Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-V", "LODGE-SEED", "-J", "-o"])
            .arg(&image)
            .arg(dir.path().join("seed.toml"))
            .output();
        let Ok(made) = made else {
            eprintln!("skipped: no xorriso here");
            return;
        };
        assert!(made.status.success());
        expect(
            probe(&image).unwrap(),
            FilesystemKind::Iso9660,
            "LODGE-SEED",
        );
    }

    #[test]
    fn nothing_and_nonsense() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(probe(file.path()).unwrap(), None);
        for len in [1, 511, 512, 1535, 40_000] {
            file.as_file().set_len(len).unwrap();
            assert_eq!(probe(file.path()).unwrap(), None);
        }
        // A master boot record is not a FAT boot sector.
        file.as_file().write_all_at(&[0xeb, 0x63], 0).unwrap();
        file.as_file().write_all_at(&[0x55, 0xaa], 510).unwrap();
        assert_eq!(probe(file.path()).unwrap(), None);
    }

    #[test]
    fn a_fat_whose_root_lies_beyond_everything() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut boot = [0xff; 512];
        boot[0] = 0xeb;
        boot[11..13].copy_from_slice(&4096u16.to_le_bytes());
        boot[13] = 128;
        boot[16] = 2;
        boot[17..19].copy_from_slice(&[0, 0]);
        boot[22..24].copy_from_slice(&[0, 0]);
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        file.as_file().write_all_at(&boot, 0).unwrap();
        let found = probe(file.path()).unwrap().unwrap();
        assert_eq!(
            (found.kind, found.label.as_str()),
            (FilesystemKind::Vfat, "")
        );
    }
}
