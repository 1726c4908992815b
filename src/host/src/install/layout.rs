//! The partitions of a disk that Lodge is installed on.

use std::io::{self, Read, Seek, Write};
use std::ops::Range;

use gptman::{GPT, GPTPartitionEntry};
use uuid::{Uuid, uuid};

const MIB: u64 = 1 << 20;

/// Where partitions begin and end: a multiple of every disk's own blocks.
const ALIGNMENT: u64 = MIB;

/// Size of the table at either end of a disk, at most.
const TABLE: u64 = MIB;

/// The smallest disk that can be installed to, in bytes: XFS wants 300 MiB, and the data should be more than that.
pub const LEAST_SIZE: u64 = 2048 * MIB;

/// Partition types (UEFI 2.10, table 5.7, and those that GRUB and Linux have defined).
const BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
const EFI_SYSTEM: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
const LINUX: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");

/// A partition. The numbers are known to the boot menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Where a BIOS finds GRUB.
    BiosBoot = 1,
    /// The EFI system partition, with GRUB's configuration for BIOS and UEFI.
    Esp = 2,
    /// The first image.
    ImageA = 3,
    /// The second image.
    ImageB = 4,
    /// The data.
    Data = 5,
}

impl Part {
    /// Its number on the disk, from 1.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::BiosBoot => "lodge-bios",
            Self::Esp => "lodge-esp",
            Self::ImageA => "lodge-a",
            Self::ImageB => "lodge-b",
            Self::Data => "lodge-data",
        }
    }

    /// Size in bytes; the data has what is left.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::BiosBoot => Some(MIB),
            Self::Esp => Some(64 * MIB),
            Self::ImageA | Self::ImageB => Some(512 * MIB),
            Self::Data => None,
        }
    }

    fn kind(self) -> Uuid {
        match self {
            Self::BiosBoot => BIOS_BOOT,
            Self::Esp => EFI_SYSTEM,
            Self::ImageA | Self::ImageB | Self::Data => LINUX,
        }
    }
}

/// Where the partitions of a disk of `size` bytes are, in bytes.
pub(super) fn layout(size: u64, with_data: bool) -> Vec<(Part, Range<u64>)> {
    let all = [
        Part::BiosBoot,
        Part::Esp,
        Part::ImageA,
        Part::ImageB,
        Part::Data,
    ];
    let end = size.saturating_sub(TABLE) / ALIGNMENT * ALIGNMENT;
    let mut at = ALIGNMENT;
    let parts = all
        .into_iter()
        .filter(|part| with_data || *part != Part::Data);
    parts
        .map(|part| {
            let start = at;
            at = part.size().map_or(end, |size| start + size);
            (part, start..at)
        })
        .collect()
}

/// Writes the table, at both ends of the disk. `bootable` marks it for a BIOS; some UEFI firmware starts nothing from a disk
/// that is marked so.
///
/// # Errors
/// When the disk cannot be read or written.
pub(super) fn write_table<D: Read + Write + Seek>(
    disk: &mut D,
    block: u64,
    parts: &[(Part, Range<u64>)],
    bootable: bool,
) -> io::Result<()> {
    let failed = |error: gptman::Error| io::Error::other(error);
    let identity = Uuid::new_v4().to_bytes_le();
    let mut table = GPT::new_from(disk, block, identity).map_err(failed)?;
    for (part, range) in parts {
        table[part.number()] = GPTPartitionEntry {
            partition_type_guid: part.kind().to_bytes_le(),
            unique_partition_guid: Uuid::new_v4().to_bytes_le(),
            starting_lba: range.start / block,
            ending_lba: range.end / block - 1,
            attribute_bits: 0,
            partition_name: part.name().into(),
        };
    }
    if bootable {
        GPT::write_bootable_protective_mbr_into(disk, block).map_err(failed)?;
    } else {
        GPT::write_protective_mbr_into(disk, block).map_err(failed)?;
    }
    table.write_into(disk).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn partitions_follow_each_other_and_end_before_the_table() {
        for size in [LEAST_SIZE, LEAST_SIZE + 12345, 16 << 40] {
            let parts = layout(size, true);
            assert_eq!(parts.len(), 5);
            for pair in parts.windows(2) {
                assert_eq!(pair[0].1.end, pair[1].1.start);
            }
            let data = &parts[4].1;
            assert!(data.end <= size - 34 * 512 && data.end - data.start > 900 << 20);
            assert!(parts.iter().all(|(_, at)| at.start.is_multiple_of(MIB)));
        }
        assert_eq!(layout(LEAST_SIZE, false).len(), 4);
    }

    #[test]
    fn other_programs_read_the_table() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LEAST_SIZE).unwrap();
        write_table(file.as_file_mut(), 512, &layout(LEAST_SIZE, true), true).unwrap();
        let shown = Command::new("sfdisk")
            .arg("--dump")
            .arg(file.path())
            .output()
            .expect("sfdisk, of the package fdisk");
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(text.contains("label: gpt"), "{text}");
        for (number, name) in [(1, "lodge-bios"), (2, "lodge-esp"), (5, "lodge-data")] {
            let line = text
                .lines()
                .find(|line| line.contains(&format!("{number} : start=")))
                .unwrap_or_else(|| panic!("no partition {number}: {text}"));
            assert!(line.contains(&format!("name=\"{name}\"")), "{line}");
        }
    }
}
