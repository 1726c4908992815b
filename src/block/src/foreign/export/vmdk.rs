//! A streamOptimized VMDK: grains compressed one by one, each table behind its grains, the directory at the end.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::{CHUNK, Disk, Export};
use crate::SECTOR;
use crate::copy::CopyError;

/// Sectors of a grain, and entries of a grain table: what everybody uses.
const GRAIN_SECTORS: u64 = 128;
const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
const PER_TABLE: u64 = 512;

/// Sectors before the first grain; the descriptor has the first of them but one.
const OVERHEAD: u64 = 128;
const DESCRIPTOR_SECTORS: u64 = 20;

/// Fast, and not much larger than what better levels make of the same.
const LEVEL: u32 = 3;

/// Kinds of markers.
mod marker {
    pub(super) const END: u32 = 0;
    pub(super) const TABLE: u32 = 1;
    pub(super) const DIRECTORY: u32 = 2;
    pub(super) const FOOTER: u32 = 3;
}

pub(super) struct Vmdk {
    disk: Disk,
    name: String,
    /// The next grain of the disk.
    next: u64,
    /// Sectors handed out so far.
    sector: u64,
    /// Of the table that is filled.
    table: Vec<u32>,
    directory: Vec<u32>,
    state: State,
    pack: Compress,
    grain: Vec<u8>,
    packed: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Grains,
    Done,
}

impl Vmdk {
    pub(super) fn new(disk: Disk, name: &str) -> Self {
        Self {
            disk,
            name: name.to_owned(),
            next: 0,
            sector: 0,
            table: vec![0; PER_TABLE as usize],
            directory: Vec::new(),
            state: State::Header,
            pack: Compress::new(Compression::new(LEVEL), true),
            grain: vec![0; GRAIN as usize],
            // What cannot be compressed becomes a little longer.
            packed: vec![0; GRAIN as usize + 1024],
        }
    }

    fn grains(&self) -> u64 {
        self.disk.size.div_ceil(GRAIN)
    }

    /// Appends the next grain that is not all zeroes, or goes on to the end.
    fn step(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        if self.next == self.grains() {
            self.finish(buffer)?;
            self.state = State::Done;
            return Ok(());
        }
        let here = self.next * GRAIN;
        let data = self.disk.next_data(here)?;
        let end = self.grains();
        let wanted = data.map_or(end, |(start, _)| start / GRAIN);
        if wanted > self.next {
            // Nothing up to the next data, or up to the end of the table.
            let table_end = (self.next / PER_TABLE + 1) * PER_TABLE;
            self.next = wanted.min(table_end).min(end);
        } else {
            let mut grain = std::mem::take(&mut self.grain);
            self.disk.read(here, &mut grain)?;
            if grain.iter().any(|byte| *byte != 0) {
                self.table[(self.next % PER_TABLE) as usize] = self.place()?;
                self.append_grain(&grain, buffer)?;
            }
            self.grain = grain;
            self.next += 1;
        }
        if self.next.is_multiple_of(PER_TABLE) || self.next == end {
            self.finish_table(buffer)?;
        }
        Ok(())
    }

    /// The sector that comes next. The format counts them in 32 bits.
    fn place(&self) -> Result<u32, CopyError> {
        u32::try_from(self.sector).map_err(|_| {
            let problem = "a VMDK cannot be larger than 2 TiB";
            CopyError::host("exporting", std::io::Error::other(problem))
        })
    }

    fn append_grain(&mut self, grain: &[u8], buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        self.pack.reset();
        let status = self
            .pack
            .compress(grain, &mut self.packed, FlushCompress::Finish);
        if status.ok() != Some(Status::StreamEnd) {
            let problem = std::io::Error::other("the compressor failed");
            return Err(CopyError::host("compressing", problem));
        }
        let length = self.pack.total_out() as usize;
        let start = buffer.len();
        buffer.extend((self.next * GRAIN_SECTORS).to_le_bytes());
        buffer.extend((length as u32).to_le_bytes());
        buffer.extend(&self.packed[..length]);
        self.fill_up(start, buffer);
        Ok(())
    }

    /// Fills up the last sector of what was appended from `start` on, and counts it.
    fn fill_up(&mut self, start: usize, buffer: &mut Vec<u8>) {
        let length = (buffer.len() - start).next_multiple_of(SECTOR as usize);
        buffer.resize(start + length, 0);
        self.sector += length as u64 / SECTOR;
    }

    fn append_marker(&mut self, sectors: u64, kind: u32, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.extend(sectors.to_le_bytes());
        buffer.extend(0_u32.to_le_bytes());
        buffer.extend(kind.to_le_bytes());
        self.fill_up(start, buffer);
    }

    /// Appends the table of the grains before, if it has any.
    fn finish_table(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        if self.table.iter().all(|entry| *entry == 0) {
            self.directory.push(0);
            return Ok(());
        }
        self.append_marker(PER_TABLE * 4 / SECTOR, marker::TABLE, buffer);
        self.directory.push(self.place()?);
        let start = buffer.len();
        buffer.extend(self.table.iter().flat_map(|entry| entry.to_le_bytes()));
        self.fill_up(start, buffer);
        self.table.fill(0);
        Ok(())
    }

    /// Appends directory, footer and end.
    fn finish(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        let length = self.directory.len() as u64 * 4;
        self.append_marker(length.div_ceil(SECTOR), marker::DIRECTORY, buffer);
        let at = u64::from(self.place()?);
        let start = buffer.len();
        buffer.extend(self.directory.iter().flat_map(|entry| entry.to_le_bytes()));
        self.fill_up(start, buffer);
        self.append_marker(1, marker::FOOTER, buffer);
        self.append_header(at, buffer);
        self.append_marker(0, marker::END, buffer);
        Ok(())
    }

    /// The header, and as the footer the same with the place of the directory.
    fn append_header(&mut self, directory: u64, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        let mut header = [0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"KDMV");
        put(4, &3_u32.to_le_bytes());
        // Line ends can be checked, grains are compressed, there are markers.
        put(8, &0x3_0001_u32.to_le_bytes());
        put(12, &self.disk.size.div_ceil(SECTOR).to_le_bytes());
        put(20, &GRAIN_SECTORS.to_le_bytes());
        put(28, &1_u64.to_le_bytes());
        put(36, &DESCRIPTOR_SECTORS.to_le_bytes());
        put(44, &(PER_TABLE as u32).to_le_bytes());
        put(56, &directory.to_le_bytes());
        put(64, &OVERHEAD.to_le_bytes());
        put(73, b"\n \r\n");
        put(77, &1_u16.to_le_bytes());
        buffer.extend(header);
        self.fill_up(start, buffer);
    }

    fn append_descriptor(&mut self, buffer: &mut Vec<u8>) {
        let sectors = self.disk.size.div_ceil(SECTOR);
        let cylinders = (sectors / (255 * 63)).clamp(1, 65535);
        let name = &self.name;
        // An identity that only has to change when the content does.
        let id = crc32c::crc32c(name.as_bytes()) & 0x7fff_ffff | 1;
        let start = buffer.len();
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID={id:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
             # Extent description\nRW {sectors} SPARSE \"{name}.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
             ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"255\"\n\
             ddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"13\"\n"
        );
        buffer.extend(text.bytes());
        buffer.resize(start + ((OVERHEAD - 1) * SECTOR) as usize, 0);
        self.sector += OVERHEAD - 1;
    }
}

impl Export for Vmdk {
    fn length(&self) -> Option<u64> {
        None
    }

    fn position(&self) -> u64 {
        (self.next * GRAIN).min(self.disk.size)
    }

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        let most = buffer.len() + CHUNK;
        if self.state == State::Header {
            self.append_header(u64::MAX, buffer);
            self.append_descriptor(buffer);
            self.state = State::Grains;
        }
        while self.state == State::Grains && buffer.len() < most {
            self.step(buffer)?;
        }
        Ok(())
    }
}
