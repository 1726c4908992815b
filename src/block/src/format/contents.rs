//! What is on a raw disk: partitions or a filesystem.

use super::signatures::has;

/// How a disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionTable {
    /// A master boot record.
    Mbr,
    /// A GUID partition table, for sectors of 512 bytes unless told otherwise.
    Gpt {
        /// Sector size in bytes the table was written for.
        sector: u32,
    },
}

/// What lies directly on a disk without partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filesystem {
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// F2FS.
    F2fs,
    /// NTFS.
    Ntfs,
    /// exFAT.
    ExFat,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// SquashFS.
    Squashfs,
    /// EROFS.
    Erofs,
    /// Linux swap space.
    Swap,
    /// A LUKS container.
    Luks,
    /// An LVM physical volume.
    Lvm,
}

/// What is on a raw disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// The partition table, if there is one.
    pub partitions: Option<PartitionTable>,
    /// The filesystem on the whole disk, if there is one.
    pub filesystem: Option<Filesystem>,
}

impl Contents {
    /// Whether nothing known was found: an empty or foreign disk.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Filesystem {
    /// Name as `blkid` and the API use it, e.g. `ext4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
            Self::Ntfs => "ntfs",
            Self::ExFat => "exfat",
            Self::Fat => "vfat",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Swap => "swap",
            Self::Luks => "luks",
            Self::Lvm => "lvm",
        }
    }
}

/// Offset, signature, filesystem.
const FILESYSTEMS: &[(usize, &[u8], Filesystem)] = &[
    (0, b"LUKS\xba\xbe", Filesystem::Luks),
    (0, b"XFSB", Filesystem::Xfs),
    (0, b"hsqs", Filesystem::Squashfs),
    (3, b"NTFS    ", Filesystem::Ntfs),
    (3, b"EXFAT   ", Filesystem::ExFat),
    (0x36, b"FAT12   ", Filesystem::Fat),
    (0x36, b"FAT16   ", Filesystem::Fat),
    (0x52, b"FAT32   ", Filesystem::Fat),
    (0x400, b"\xe2\xe1\xf5\xe0", Filesystem::Erofs),
    (0x400, b"\x10\x20\xf5\xf2", Filesystem::F2fs),
    (0x438, b"\x53\xef", Filesystem::Ext),
    (4096 - 10, b"SWAPSPACE2", Filesystem::Swap),
    (0x10040, b"_BHRfS_M", Filesystem::Btrfs),
];

pub(super) fn contents(head: &[u8]) -> Contents {
    let filesystem = FILESYSTEMS
        .iter()
        .find(|(offset, bytes, _)| has(head, *offset, bytes))
        .map(|(_, _, filesystem)| *filesystem)
        .or_else(|| lvm(head));
    Contents {
        partitions: partitions(head, filesystem),
        filesystem,
    }
}

fn partitions(head: &[u8], filesystem: Option<Filesystem>) -> Option<PartitionTable> {
    for sector in [512_u32, 4096] {
        if has(head, sector as usize, b"EFI PART") {
            return Some(PartitionTable::Gpt { sector });
        }
    }
    // The boot sectors of FAT and NTFS end in the same signature, and their code
    // lies where the partition entries would be.
    let boot_sector = matches!(
        filesystem,
        Some(Filesystem::Fat | Filesystem::Ntfs | Filesystem::ExFat)
    );
    (!boot_sector && has(head, 510, b"\x55\xaa") && plausible_mbr(head))
        .then_some(PartitionTable::Mbr)
}

/// Whether the four entries look like entries: a status of 0 or 0x80, and at
/// least one of them in use.
fn plausible_mbr(head: &[u8]) -> bool {
    let Some(entries) = head.get(446..510) else {
        return false;
    };
    let mut used = false;
    for entry in entries.chunks_exact(16) {
        if entry[0] & 0x7f != 0 {
            return false;
        }
        let sectors = u32::from_le_bytes([entry[12], entry[13], entry[14], entry[15]]);
        used |= entry[4] != 0 && sectors != 0;
    }
    used
}

/// The label of a physical volume stands in one of the first four sectors.
fn lvm(head: &[u8]) -> Option<Filesystem> {
    (0..4)
        .map(|sector| sector * 512)
        .any(|offset| has(head, offset, b"LABELONE") && has(head, offset + 24, b"LVM2 001"))
        .then_some(Filesystem::Lvm)
}
