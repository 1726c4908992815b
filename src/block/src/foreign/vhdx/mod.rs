//! VHDX, fixed and dynamic, by Microsoft's [MS-VHDX].

mod layout;

use super::source::little::u64_at;
use super::source::{Part, Source, Table};
use super::{Content, Extent, Image, ImageError};
use crate::format::Format;
use layout::Geometry;

/// Sectors that the bitmaps of one chunk of blocks describe.
const CHUNK_SECTORS: u64 = 1 << 23;

/// States of a block, in the lowest bits of its entry.
mod state {
    pub(super) const NOT_PRESENT: u64 = 0;
    pub(super) const UNDEFINED: u64 = 1;
    pub(super) const ZERO: u64 = 2;
    pub(super) const UNMAPPED: u64 = 3;
    /// The same in files of programs that followed a draft.
    pub(super) const UNMAPPED_DRAFT: u64 = 5;
    pub(super) const PRESENT: u64 = 6;
    pub(super) const PARTLY_PRESENT: u64 = 7;
}

#[derive(Debug)]
pub(super) struct Vhdx {
    source: Source,
    geometry: Geometry,
    table: Table,
    position: u64,
}

impl Vhdx {
    pub(super) fn open(part: Part<'_>) -> Result<Self, ImageError> {
        let mut source = Source::new(part, Format::Vhdx)?;
        if source.array(0)? != *b"vhdxfile" {
            return Err(source.damaged("its signature is missing"));
        }
        let header = layout::header(&source)?;
        if header.log_id != [0; 16] {
            return Err(ImageError::refused(
                Format::Vhdx,
                "that was not closed: changes are only in its log yet",
                "shut the guest down before copying its disk; or put the log in order with `qemu-img check -r all FILE`, or `Mount-VHD` \
                 in Windows",
            ));
        }
        let (bat, metadata) = layout::regions(&source)?;
        let geometry = layout::geometry(&source, metadata)?;
        let per_chunk = CHUNK_SECTORS * geometry.sector / geometry.block;
        let last = (geometry.size - 1) / geometry.block;
        let entries = last + last / per_chunk + 1;
        if entries * 8 > bat.length {
            return Err(source.damaged(format!("its table has no room for {entries} entries")));
        }
        let table = Table::new(&mut source, bat.at, entries, 8)?;
        Ok(Self {
            source,
            geometry,
            table,
            position: 0,
        })
    }

    fn content(&mut self, entry: u64, length: u64) -> Result<Option<Content>, ImageError> {
        match entry & 7 {
            state::NOT_PRESENT
            | state::UNDEFINED
            | state::ZERO
            | state::UNMAPPED
            | state::UNMAPPED_DRAFT => Ok(None),
            state::PRESENT => {
                let at = entry >> 20 << 20;
                self.source.require(at, length)?;
                self.source.claim(length)?;
                Ok(Some(Content::Plain { at }))
            }
            // Only a disk with a parent has them.
            state::PARTLY_PRESENT => Err(self.source.damaged("a block is only partly there")),
            other => Err(self.source.damaged(format!("a block has state {other}"))),
        }
    }
}

impl Image for Vhdx {
    fn format(&self) -> Format {
        Format::Vhdx
    }

    fn size(&self) -> u64 {
        self.geometry.size
    }

    fn describe(&self) -> String {
        if self.geometry.fixed {
            "vhdx, fixed"
        } else {
            "vhdx, dynamic"
        }
        .to_owned()
    }

    fn next_extent(&mut self) -> Result<Option<Extent>, ImageError> {
        let Geometry {
            size,
            block,
            sector,
            ..
        } = self.geometry;
        let per_chunk = CHUNK_SECTORS * sector / block;
        while self.position < size {
            let start = self.position;
            let number = start / block;
            // Behind the blocks of a chunk is the entry of its bitmap.
            let index = number + number / per_chunk;
            let entry = u64_at(self.table.entry(&self.source, index)?, 0);
            let length = block.min(size - start);
            let content = self.content(entry, length)?;
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
