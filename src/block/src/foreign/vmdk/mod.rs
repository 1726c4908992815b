//! VMDK in one file, monolithicSparse and streamOptimized, by VMware's "Virtual Disk Format" 5.0.

mod descriptor;

use super::source::little::{u16_at, u32_at, u64_at};
use super::source::{Part, Source, Table};
use super::{Content, Extent, Image, ImageError, Packing, check_size};
use crate::SECTOR;
use crate::format::Format;
use descriptor::Descriptor;

const HEADER: usize = 512;

/// The grain directory's place in the header of a file that was written front to back: it is in the footer.
const AT_END: u64 = u64::MAX;

/// Largest grain in sectors; real ones have 128.
const LARGEST_GRAIN: u64 = 4096;

/// Most entries of a grain table; the specification knows only 512.
const LARGEST_TABLE: u64 = 4096;

/// Flags of the header.
mod flag {
    pub(super) const ZEROED_GRAINS: u32 = 1 << 2;
    pub(super) const COMPRESSED: u32 = 1 << 16;
    pub(super) const MARKERS: u32 = 1 << 17;
}

#[derive(Debug)]
pub(super) struct Vmdk {
    source: Source,
    create_type: String,
    size: u64,
    /// Bytes of a grain.
    grain: u64,
    /// Grains of a table.
    per_table: u64,
    flags: u32,
    directory: Table,
    table: Option<(u64, Table)>,
    position: u64,
}

/// The error of a text file that names extents in other files.
pub(super) fn refuse_descriptor(part: Part<'_>) -> Result<ImageError, ImageError> {
    let source = Source::new(part, Format::VmdkDescriptor)?;
    let mut text = vec![0; source.size().min(descriptor::LONGEST) as usize];
    source.read(0, &mut text)?;
    Ok(match Descriptor::parse(&text).require_whole() {
        Err(error) => error,
        Ok(()) => ImageError::refused(
            Format::VmdkDescriptor,
            "and names a file beside it",
            "upload the file that it names",
        ),
    })
}

impl Vmdk {
    pub(super) fn open(part: Part<'_>) -> Result<Self, ImageError> {
        let mut source = Source::new(part, Format::Vmdk)?;
        let header = header(&source)?;
        let create_type = read_descriptor(&source, &header)?;
        let size = u64_at(&header, 12).checked_mul(SECTOR);
        let size = size.ok_or_else(|| source.damaged("its disk is too large"))?;
        check_size(Format::Vmdk, size)?;
        let (grain, per_table) = (u64_at(&header, 20), u64::from(u32_at(&header, 44)));
        if !grain.is_power_of_two() || !(8..=LARGEST_GRAIN).contains(&grain) {
            return Err(source.damaged(format!("it says that grains have {grain} sectors")));
        }
        if !(1..=LARGEST_TABLE).contains(&per_table) {
            return Err(source.damaged(format!("it says that tables have {per_table} entries")));
        }
        let flags = u32_at(&header, 8);
        let compressed = flags & flag::COMPRESSED != 0;
        if compressed && (u16_at(&header, 77) != 1 || flags & flag::MARKERS == 0) {
            return Err(source.damaged("its grains are compressed in a way nobody knows"));
        }
        let grain = grain * SECTOR;
        let at = place(&source, u64_at(&header, 56))?;
        let directory = Table::new(&mut source, at, size.div_ceil(grain * per_table), 4)?;
        Ok(Self {
            source,
            create_type,
            size,
            grain,
            per_table,
            flags,
            directory,
            table: None,
            position: 0,
        })
    }

    fn load_table(&mut self, index: u64) -> Result<Option<&mut Table>, ImageError> {
        if self
            .table
            .as_ref()
            .is_none_or(|(loaded, _)| *loaded != index)
        {
            let at = u32_at(self.directory.entry(&self.source, index)?, 0);
            if at == 0 {
                return Ok(None);
            }
            let at = u64::from(at) * SECTOR;
            let table = Table::new(&mut self.source, at, self.per_table, 4)?;
            self.table = Some((index, table));
        }
        Ok(self.table.as_mut().map(|(_, table)| table))
    }

    fn content(&mut self, entry: u32) -> Result<Option<Content>, ImageError> {
        if entry == 0 || (entry == 1 && self.flags & flag::ZEROED_GRAINS != 0) {
            return Ok(None);
        }
        let at = u64::from(entry) * SECTOR;
        if self.flags & flag::COMPRESSED == 0 {
            self.source.claim_data(at, self.grain)?;
            return Ok(Some(Content::Plain { at }));
        }
        // The marker: the grain's first sector, and the length of what follows.
        let marker: [u8; 12] = self.source.array(at)?;
        if u64_at(&marker, 0) != self.position / SECTOR {
            let problem = format!("at byte {at} there is another grain than the one looked for");
            return Err(self.source.damaged(problem));
        }
        let length = u32_at(&marker, 8);
        if u64::from(length) > 2 * self.grain {
            return Err(self
                .source
                .damaged(format!("a grain is {length} bytes long")));
        }
        let at = at + marker.len() as u64;
        self.source.require(at, u64::from(length))?;
        self.source.claim(marker.len() as u64 + u64::from(length))?;
        Ok(Some(Content::Packed {
            at,
            length,
            packing: Packing::Zlib,
            unpacked: self.grain as u32,
        }))
    }
}

/// A place in the file, given in sectors.
fn place(source: &Source, sectors: u64) -> Result<u64, ImageError> {
    sectors
        .checked_mul(SECTOR)
        .ok_or_else(|| source.damaged(format!("it refers to sector {sectors}")))
}

/// The header, or the footer where that is the one with the places of the tables.
fn header(source: &Source) -> Result<[u8; HEADER], ImageError> {
    let header: [u8; HEADER] = source.array(0)?;
    if header.starts_with(b"COWD") {
        return Err(ImageError::refused(
            Format::Vmdk,
            "that is a part of a disk of ESXi",
            "export the machine as an OVA, or copy the disk with `vmkfstools -i DISK -d thin` and `qemu-img convert`",
        ));
    }
    if !header.starts_with(b"KDMV") {
        return Err(ImageError::refused(
            Format::Vmdk,
            "with the changes of a snapshot of ESXi",
            "consolidate the machine's snapshots and export it as an OVA",
        ));
    }
    let version = u32_at(&header, 4);
    if !(1..=3).contains(&version) {
        let problem = format!("of version {version}, which is not known here");
        let remedy = "convert it with `qemu-img convert -O vmdk`";
        return Err(ImageError::refused(Format::Vmdk, problem, remedy));
    }
    // Transfers as text change these.
    if header[73..77] != *b"\n \r\n" {
        return Err(source.damaged("it was copied as if it were text"));
    }
    if u64_at(&header, 56) != AT_END {
        return Ok(header);
    }
    // Footer and end-of-stream marker are the last two sectors.
    let at = source.size().saturating_sub(2 * SECTOR);
    let footer: [u8; HEADER] = source.array(at)?;
    if !footer.starts_with(b"KDMV") || u64_at(&footer, 56) == AT_END {
        return Err(source.cut_short(source.size()));
    }
    Ok(footer)
}

/// Checks that the disk is in this one file, and returns its type.
fn read_descriptor(source: &Source, header: &[u8]) -> Result<String, ImageError> {
    // In the header of the file, whatever a footer says.
    let first: [u8; HEADER] = source.array(0)?;
    let of = if u64_at(&first, 28) != 0 {
        &first
    } else {
        header
    };
    let (at, length) = (u64_at(of, 28), u64_at(of, 36));
    let length = place(source, length)?.min(descriptor::LONGEST);
    let mut text = vec![0; length as usize];
    if at != 0 {
        source.read(place(source, at)?, &mut text)?;
    }
    let descriptor = Descriptor::parse(&text);
    if descriptor == Descriptor::default() {
        return Err(ImageError::refused(
            Format::Vmdk,
            "that is one of several extents of a disk",
            "make one file of them where they are: `qemu-img convert -O vmdk DESCRIPTOR NEW`",
        ));
    }
    descriptor.require_whole()?;
    Ok(descriptor.create_type)
}

impl Image for Vmdk {
    fn format(&self) -> Format {
        Format::Vmdk
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn describe(&self) -> String {
        format!("vmdk, {}", self.create_type)
    }

    fn next_extent(&mut self) -> Result<Option<Extent>, ImageError> {
        while self.position < self.size {
            let number = self.position / self.grain;
            let (index, within) = (number / self.per_table, number % self.per_table);
            if self.load_table(index)?.is_none() {
                self.position = (index + 1) * self.per_table * self.grain;
                continue;
            }
            let Some((_, table)) = &mut self.table else {
                continue;
            };
            let entry = u32_at(table.entry(&self.source, within)?, 0);
            let content = self.content(entry)?;
            let start = self.position;
            self.position += self.grain;
            if let Some(content) = content {
                return Ok(Some(Extent {
                    start,
                    length: self.grain.min(self.size - start),
                    content,
                }));
            }
        }
        Ok(None)
    }
}
