//! VHD, fixed and dynamic, by Microsoft's "Virtual Hard Disk Image Format Specification" 1.0.

use super::error::shown;
use super::source::big::{u32_at, u64_at};
use super::source::{Part, Source, Table};
use super::{Content, Extent, Image, ImageError, check_size};
use crate::SECTOR;
use crate::format::Format;

const FOOTER: usize = 512;
const DYNAMIC_HEADER: usize = 1024;

/// Largest disk the format can describe: block addresses count sectors in 32 bits.
const LARGEST: u64 = 2 << 40;

/// Entry of a block that is not in the file.
const ABSENT: u32 = u32::MAX;

/// Disk types of the footer.
mod kind {
    pub(super) const FIXED: u32 = 2;
    pub(super) const DYNAMIC: u32 = 3;
    pub(super) const DIFFERENCING: u32 = 4;
}

#[derive(Debug)]
pub(super) struct Vhd {
    source: Source,
    size: u64,
    blocks: Option<Blocks>,
    position: u64,
}

/// Blocks of a dynamic disk.
#[derive(Debug)]
struct Blocks {
    size: u64,
    table: Table,
    /// The bitmap of the block at the present position, if it has one: which of its sectors were ever written.
    bitmap: Option<(u64, Vec<u8>)>,
}

impl Vhd {
    pub(super) fn open(part: Part<'_>) -> Result<Self, ImageError> {
        let mut source = Source::new(part, Format::Vhd)?;
        let footer = footer(&source)?;
        let size = u64_at(&footer, 48);
        check_size(Format::Vhd, size)?;
        if size > LARGEST {
            return Err(source.damaged(format!("its disk would have {size} bytes")));
        }
        let blocks = match u32_at(&footer, 60) {
            kind::FIXED => {
                source.require(0, size)?;
                source.claim(size)?;
                None
            }
            kind::DYNAMIC => Some(Blocks::new(&mut source, u64_at(&footer, 16), size)?),
            kind::DIFFERENCING => return Err(refuse_differencing(&source, u64_at(&footer, 16))),
            other => return Err(source.damaged(format!("it says that it is of type {other}"))),
        };
        Ok(Self {
            source,
            size,
            blocks,
            position: 0,
        })
    }
}

/// The footer, which a dynamic disk has at the start of the file as well.
fn footer(source: &Source) -> Result<[u8; FOOTER], ImageError> {
    let end = source.size().checked_sub(FOOTER as u64);
    let mut found = false;
    for at in [end, Some(0)].into_iter().flatten() {
        let footer: [u8; FOOTER] = source.array(at)?;
        if !footer.starts_with(b"conectix") {
            continue;
        }
        if checksum(&footer, 64) == u32_at(&footer, 64) {
            return Ok(footer);
        }
        found = true;
    }
    // Before 2004 footers had 511 bytes; the last one of 512 is zero.
    if let Some(at) = source.size().checked_sub(FOOTER as u64 - 1) {
        let mut footer = [0; FOOTER];
        source.read(at, &mut footer[..FOOTER - 1])?;
        if footer.starts_with(b"conectix") && checksum(&footer, 64) == u32_at(&footer, 64) {
            return Ok(footer);
        }
    }
    Err(source.damaged(if found {
        "the checksum of its footer is wrong"
    } else {
        "its footer is missing"
    }))
}

/// Ones' complement of the sum of all bytes but those of the checksum itself.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    !(sum(bytes) - sum(&bytes[at..at + 4]))
}

fn dynamic_header(source: &Source, at: u64) -> Result<[u8; DYNAMIC_HEADER], ImageError> {
    let header: [u8; DYNAMIC_HEADER] = source.array(at)?;
    if !header.starts_with(b"cxsparse") {
        return Err(source.damaged("the header of its blocks is missing"));
    }
    if checksum(&header, 36) != u32_at(&header, 36) {
        return Err(source.damaged("the checksum of the header of its blocks is wrong"));
    }
    Ok(header)
}

fn refuse_differencing(source: &Source, at: u64) -> ImageError {
    let parent = dynamic_header(source, at).map(|header| {
        let (units, _) = header[64..64 + 512].as_chunks::<2>();
        let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
        let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        shown(String::from_utf16_lossy(&name).as_bytes())
    });
    match parent {
        Ok(parent) => ImageError::refused(
            Format::Vhd,
            format!("that has only the changes to its parent \"{parent}\""),
            "merge both where they are: `Merge-VHD` in Windows, or `Convert-VHD`",
        ),
        Err(error) => error,
    }
}

impl Blocks {
    fn new(source: &mut Source, at: u64, disk: u64) -> Result<Self, ImageError> {
        let header = dynamic_header(source, at)?;
        let size = u64::from(u32_at(&header, 32));
        if !size.is_power_of_two() || !(4096..=256 << 20).contains(&size) {
            return Err(source.damaged(format!("it says that blocks have {size} bytes")));
        }
        let (needed, entries) = (disk.div_ceil(size), u64::from(u32_at(&header, 28)));
        if needed > entries {
            return Err(source.damaged(format!(
                "its table has {entries} blocks, and {needed} are needed"
            )));
        }
        let table = Table::new(source, u64_at(&header, 16), needed, 4)?;
        Ok(Self {
            size,
            table,
            bitmap: None,
        })
    }

    /// What is at `position`, up to the end of its block, and how long that is.
    fn here(
        &mut self,
        source: &mut Source,
        position: u64,
        disk: u64,
    ) -> Result<(u64, Option<Content>), ImageError> {
        let (block, within) = (position / self.size, position % self.size);
        let rest = (self.size - within).min(disk - position);
        let entry = u32_at(self.table.entry(source, block)?, 0);
        if entry == ABSENT {
            return Ok((rest, None));
        }
        let at = u64::from(entry) * SECTOR;
        let bitmap = self.bitmap(source, block, at)?;
        let bit = |sector: u64| bitmap[(sector / 8) as usize] >> (7 - sector % 8) & 1 != 0;
        let first = within / SECTOR;
        let end = first + rest / SECTOR;
        let run = (first..end).take_while(|sector| bit(*sector) == bit(first));
        let length = run.count() as u64 * SECTOR;
        if !bit(first) {
            return Ok((length, None));
        }
        let at = at + bitmap.len() as u64 + within;
        // The last block may be cut where the disk ends.
        source.require(at, length)?;
        source.claim(length)?;
        Ok((length, Some(Content::Plain { at })))
    }

    fn bitmap(&mut self, source: &mut Source, block: u64, at: u64) -> Result<&[u8], ImageError> {
        let loaded = self
            .bitmap
            .as_ref()
            .is_some_and(|(loaded, _)| *loaded == block);
        if !loaded {
            let length = (self.size / SECTOR / 8).next_multiple_of(SECTOR);
            let mut bytes = vec![0; length as usize];
            source.claim(length)?;
            source.read(at, &mut bytes)?;
            self.bitmap = Some((block, bytes));
        }
        Ok(self.bitmap.as_ref().map_or(&[], |(_, bytes)| bytes))
    }
}

impl Image for Vhd {
    fn format(&self) -> Format {
        Format::Vhd
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn describe(&self) -> String {
        match self.blocks {
            Some(_) => "vhd, dynamic",
            None => "vhd, fixed",
        }
        .to_owned()
    }

    fn next_extent(&mut self) -> Result<Option<Extent>, ImageError> {
        while self.position < self.size {
            let start = self.position;
            let (length, content) = match &mut self.blocks {
                Some(blocks) => blocks.here(&mut self.source, start, self.size)?,
                None => (self.size, Some(Content::Plain { at: 0 })),
            };
            self.position += length;
            if let Some(content) = content {
                return Ok(Some(Extent {
                    start,
                    length,
                    content,
                }));
            }
        }
        Ok(None)
    }
}
