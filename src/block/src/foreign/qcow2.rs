//! qcow2, versions 2 and 3, by "The qcow2 image format" of QEMU's documentation (docs/interop/qcow2.rst).

use super::error::shown;
use super::source::big::{u32_at, u64_at};
use super::source::{Part, Source, Table};
use super::{Content, Extent, Image, ImageError, Packing, check_size};
use crate::SECTOR;
use crate::format::Format;

/// Of a header of version 3, without extensions.
const HEADER: usize = 112;

/// Largest table of the first level in bytes: QEMU's own bound.
const LARGEST_L1: u64 = 32 << 20;

/// Place in the file, in an entry of either level.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The cluster of an L2 entry is compressed.
const COMPRESSED: u64 = 1 << 62;
/// The cluster of an L2 entry reads as zeroes (version 3, without subclusters).
const ZERO: u64 = 1;

/// Parts of a cluster where L2 entries are extended.
const SUBCLUSTERS: u32 = 32;

/// Bits of the incompatible features.
mod feature {
    pub(super) const DIRTY: u64 = 1;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const EXTERNAL_DATA: u64 = 1 << 2;
    pub(super) const COMPRESSION: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
}

#[derive(Debug)]
pub(super) struct Qcow2 {
    source: Source,
    version: u32,
    size: u64,
    cluster_bits: u32,
    extended: bool,
    packing: Packing,
    /// It is read upon another: zeroes are told apart from what it does not have.
    changes: bool,
    /// Tables of the first level, and of the second the one in use with its index in the first.
    l1: Table,
    l2: Option<(u64, Table)>,
    /// Where on the disk to go on.
    position: u64,
}

impl Qcow2 {
    pub(super) fn open(part: Part<'_>) -> Result<Self, ImageError> {
        Self::new(part, false)
    }

    /// As [`Qcow2::open`], of one that is to be read upon another.
    pub(super) fn open_changes(part: Part<'_>) -> Result<Self, ImageError> {
        Self::new(part, true)
    }

    fn new(part: Part<'_>, changes: bool) -> Result<Self, ImageError> {
        let mut source = Source::new(part, Format::Qcow2)?;
        let mut header = [0; HEADER];
        // A header of version 2 ends earlier, and a file may end with it.
        let length = (HEADER as u64).min(source.size()) as usize;
        source.read(0, &mut header[..length])?;
        source.require(0, 72)?;
        let header = Header::new(&source, &header)?;
        if !changes {
            header.refuse_backing(&source)?;
        }
        header.refuse()?;
        let entries = header.l1_entries(&source)?;
        let l1 = Table::new(&mut source, header.l1_offset, entries, 8)?;
        Ok(Self {
            source,
            version: header.version,
            size: header.size,
            cluster_bits: header.cluster_bits,
            extended: header.extended(),
            packing: header.packing,
            changes,
            l1,
            l2: None,
            position: 0,
        })
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The table of the second level for the present position; `None` if there is none.
    fn load_l2(&mut self, index: u64) -> Result<Option<&mut Table>, ImageError> {
        if self.l2.as_ref().is_none_or(|(loaded, _)| *loaded != index) {
            let at = u64_at(self.l1.entry(&self.source, index)?, 0) & OFFSET;
            if at == 0 {
                return Ok(None);
            }
            self.require_aligned("a table", at)?;
            let width = l2_width(self.extended);
            let entries = self.cluster() / width;
            let table = Table::new(&mut self.source, at, entries, width)?;
            self.l2 = Some((index, table));
        }
        Ok(self.l2.as_mut().map(|(_, table)| table))
    }

    fn require_aligned(&self, what: &str, at: u64) -> Result<(), ImageError> {
        if at.is_multiple_of(self.cluster()) {
            return Ok(());
        }
        let problem = format!("{what} at byte {at} does not begin with a cluster");
        Err(self.source.damaged(problem))
    }

    /// What is at the present position, up to the end of its cluster, and how long that is.
    fn here(&mut self, entry: u64, bitmap: u64) -> Result<(u64, Option<Content>), ImageError> {
        let within = self.position % self.cluster();
        let rest = self.cluster() - within;
        if entry & COMPRESSED != 0 {
            return Ok((rest, Some(self.packed(entry)?)));
        }
        let at = entry & OFFSET;
        if at != 0 {
            self.require_aligned("a cluster", at)?;
        }
        if self.extended {
            return self.subclusters(at, bitmap);
        }
        if entry & ZERO != 0 && self.version < 3 {
            return Err(self.source.damaged("a cluster of zeroes in version 2"));
        }
        if entry & ZERO != 0 {
            return Ok((rest, self.zeroes()));
        }
        if at == 0 {
            return Ok((rest, None));
        }
        self.source.claim_data(at, rest)?;
        Ok((rest, Some(Content::Plain { at })))
    }

    /// What there is to say of zeroes: nothing, of an image that is whole.
    fn zeroes(&self) -> Option<Content> {
        self.changes.then_some(Content::Zeroes)
    }

    /// The run of equal subclusters at the present position.
    fn subclusters(&mut self, at: u64, bitmap: u64) -> Result<(u64, Option<Content>), ImageError> {
        let (allocated, zeroes) = (bitmap as u32, (bitmap >> 32) as u32);
        if allocated & zeroes != 0 || (at == 0 && allocated != 0) {
            return Err(self
                .source
                .damaged("a bitmap of subclusters contradicts itself"));
        }
        let size = self.cluster() / u64::from(SUBCLUSTERS);
        let within = self.position % self.cluster();
        let first = (within / size) as u32;
        let state = |number: u32| (allocated >> number & 1 != 0, zeroes >> number & 1 != 0);
        let run = (first..SUBCLUSTERS)
            .take_while(|number| state(*number) == state(first))
            .count() as u64;
        match state(first) {
            (true, _) => {}
            (false, true) => return Ok((run * size, self.zeroes())),
            (false, false) => return Ok((run * size, None)),
        }
        self.source.claim_data(at + within, run * size)?;
        Ok((run * size, Some(Content::Plain { at: at + within })))
    }

    fn packed(&mut self, entry: u64) -> Result<Content, ImageError> {
        let split = 62 - (self.cluster_bits - 8);
        let at = entry & ((1 << split) - 1);
        let sectors = ((entry & !(1 << 63) & !COMPRESSED) >> split) + 1;
        let length = sectors * SECTOR - at % SECTOR;
        // The last sector may be another cluster's as well, and need not be filled by the file.
        let least = length.saturating_sub(SECTOR - 1).max(1);
        self.source.require(at, least)?;
        let length = length.min(self.source.size() - at);
        Ok(Content::Packed {
            at,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            packing: self.packing,
            unpacked: 1 << self.cluster_bits,
        })
    }
}

impl Image for Qcow2 {
    fn format(&self) -> Format {
        Format::Qcow2
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn describe(&self) -> String {
        let packing = match self.packing {
            Packing::Zstd => ", zstd",
            Packing::Deflate | Packing::Zlib => "",
        };
        format!("qcow2 v{}{packing}", self.version)
    }

    fn next_extent(&mut self) -> Result<Option<Extent>, ImageError> {
        let per_table = self.cluster() / l2_width(self.extended);
        while self.position < self.size {
            let cluster = self.position >> self.cluster_bits;
            let (index, number) = (cluster / per_table, cluster % per_table);
            if self.load_l2(index)?.is_none() {
                self.position = (index + 1) * per_table * self.cluster();
                continue;
            }
            let Some((_, table)) = &mut self.l2 else {
                continue;
            };
            let bytes = table.entry(&self.source, number)?;
            let (entry, bitmap) = (u64_at(bytes, 0), u64_at(bytes, 8));
            let start = self.position;
            let (length, content) = self.here(entry, bitmap)?;
            self.position += length;
            if let Some(content) = content {
                return Ok(Some(Extent {
                    start,
                    length: length.min(self.size - start),
                    content,
                }));
            }
        }
        Ok(None)
    }
}

/// Bytes of an entry of the second level.
fn l2_width(extended: bool) -> u64 {
    if extended { 16 } else { 8 }
}

struct Header {
    version: u32,
    size: u64,
    cluster_bits: u32,
    l1_size: u64,
    l1_offset: u64,
    backing: (u64, u32),
    encryption: u32,
    features: u64,
    packing: Packing,
}

impl Header {
    fn new(source: &Source, bytes: &[u8; HEADER]) -> Result<Self, ImageError> {
        let version = u32_at(bytes, 4);
        if !matches!(version, 2 | 3) {
            let problem = format!("of version {version}, which is not known here");
            let remedy = "convert it with `qemu-img convert -O qcow2 -o compat=1.1`";
            return Err(ImageError::refused(Format::Qcow2, problem, remedy));
        }
        let features = if version == 2 { 0 } else { u64_at(bytes, 72) };
        let length = if version == 2 { 72 } else { u32_at(bytes, 100) };
        // Fields that are not in the header have their defaults: here, zlib.
        let compression = if length > 104 { bytes[104] } else { 0 };
        let packing = match (features & feature::COMPRESSION != 0, compression) {
            (false, 0) => Packing::Deflate,
            (true, 1) => Packing::Zstd,
            _ => {
                let problem = format!("it says that it is compressed by method {compression}");
                return Err(source.damaged(problem));
            }
        };
        let header = Self {
            version,
            size: u64_at(bytes, 24),
            cluster_bits: u32_at(bytes, 20),
            l1_size: u64::from(u32_at(bytes, 36)),
            l1_offset: u64_at(bytes, 40),
            backing: (u64_at(bytes, 8), u32_at(bytes, 16)),
            encryption: u32_at(bytes, 32),
            features,
            packing,
        };
        let least = if header.extended() { 14 } else { 9 };
        if !(least..=21).contains(&header.cluster_bits) {
            let problem = format!("it says that clusters have 2^{} bytes", header.cluster_bits);
            return Err(source.damaged(problem));
        }
        check_size(Format::Qcow2, header.size)?;
        Ok(header)
    }

    fn extended(&self) -> bool {
        self.features & feature::EXTENDED_L2 != 0
    }

    /// Refuses what has only a part of a disk.
    fn refuse_backing(&self, source: &Source) -> Result<(), ImageError> {
        if self.backing.0 == 0 {
            return Ok(());
        }
        let mut name = vec![0; self.backing.1.min(1023) as usize];
        source.read(self.backing.0, &mut name)?;
        Err(ImageError::refused(
            Format::Qcow2,
            format!(
                "that has only the changes to its backing file \"{}\"",
                shown(&name)
            ),
            "make one file of both where they are: `qemu-img convert -O qcow2 FILE NEW`",
        ))
    }

    /// Refuses what needs other files, keys or repair.
    fn refuse(&self) -> Result<(), ImageError> {
        let refused = |problem: String, remedy: &str| {
            Err(ImageError::refused(Format::Qcow2, problem, remedy))
        };
        if self.encryption != 0 {
            return refused(
                "that is encrypted".to_owned(),
                "decrypt it where its key is: `qemu-img convert --object secret,… -O qcow2`",
            );
        }
        if self.features & feature::EXTERNAL_DATA != 0 {
            return refused(
                "whose data are in another file".to_owned(),
                "make one file of both where they are: `qemu-img convert -O qcow2 FILE NEW`",
            );
        }
        if self.features & feature::CORRUPT != 0 {
            return refused(
                "that was marked as damaged by the program that used it".to_owned(),
                "repair it with `qemu-img check -r all FILE`, and look what is lost",
            );
        }
        let known = feature::DIRTY | feature::COMPRESSION | feature::EXTENDED_L2;
        // A dirty image has wrong reference counts, which nobody needs who only reads.
        if self.features & !known != 0 {
            return refused(
                format!(
                    "with features that are not known here ({:#x})",
                    self.features & !known
                ),
                "convert it with `qemu-img convert -O qcow2`",
            );
        }
        Ok(())
    }

    /// Entries of the first level's table, all of which the disk needs.
    fn l1_entries(&self, source: &Source) -> Result<u64, ImageError> {
        let per_table = (1_u64 << self.cluster_bits) / l2_width(self.extended());
        let span = per_table << self.cluster_bits;
        let needed = self.size.div_ceil(span);
        if needed > self.l1_size || self.l1_size * 8 > LARGEST_L1 {
            let problem = format!(
                "its first table has {} entries, and {needed} are needed",
                self.l1_size
            );
            return Err(source.damaged(problem));
        }
        if !self.l1_offset.is_multiple_of(1 << self.cluster_bits) {
            return Err(source.damaged("its first table does not begin with a cluster"));
        }
        Ok(needed)
    }
}
