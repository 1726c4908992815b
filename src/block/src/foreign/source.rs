//! Reading a foreign file within its bounds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::error::ImageError;
use crate::format::Format;

/// Bytes of a table that are held at a time.
const WINDOW: u64 = 64 << 10;

/// A part of a file, or all of it: an image, maybe in an archive.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The file.
    pub file: &'a File,
    /// Where the image begins, in bytes.
    pub start: u64,
    /// Length of the image.
    pub length: u64,
}

impl<'a> Part<'a> {
    /// All of a file.
    ///
    /// # Errors
    /// When the host does not tell its length.
    pub fn whole(file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            start: 0,
            length,
        })
    }

    /// Reads up to the end of the buffer or of the part, and returns how much that was. Offsets are within the part.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(offset);
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < most {
            let at = self.start.saturating_add(offset + done as u64);
            match self.file.read_at(&mut buffer[done..most], at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// A foreign file. Whatever its tables say, nothing beyond its end is read.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    start: u64,
    size: u64,
    format: Format,
    /// Bytes of it that tables and data may still claim for themselves. None belongs to two, so their sum is
    /// bounded by the file: tables that refer to each other in circles run out of it.
    unclaimed: u64,
}

impl Source {
    pub(super) fn new(part: Part<'_>, format: Format) -> Result<Self, ImageError> {
        let file = part.file.try_clone().map_err(|source| ImageError::Host {
            what: "opening the image",
            source,
        })?;
        Ok(Self {
            file,
            start: part.start,
            size: part.length,
            format,
            unclaimed: part.length,
        })
    }

    /// Length of the file in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn damaged(&self, problem: impl Into<String>) -> ImageError {
        ImageError::damaged(self.format, problem)
    }

    /// The error of something that should be at `offset`.
    pub(super) fn cut_short(&self, offset: u64) -> ImageError {
        ImageError::CutShort {
            format: self.format,
            size: self.size,
            offset: offset.max(self.size),
        }
    }

    /// Fails unless `length` bytes at `offset` are in the file.
    pub(super) fn require(&self, offset: u64, length: u64) -> Result<(), ImageError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            Some(end) => Err(self.cut_short(end)),
            None => Err(self.damaged(format!("it refers to byte {offset}"))),
        }
    }

    /// Reads all of `buffer`.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ImageError> {
        self.require(offset, buffer.len() as u64)?;
        let part = Part {
            file: &self.file,
            start: self.start,
            length: self.size,
        };
        match part.read(offset, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            // Somebody has made it shorter.
            Ok(_) => Err(self.cut_short(offset)),
            Err(source) => Err(ImageError::Host {
                what: "reading the image",
                source,
            }),
        }
    }

    pub(super) fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], ImageError> {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Notes that `length` bytes of the file belong to something.
    pub(super) fn claim(&mut self, length: u64) -> Result<(), ImageError> {
        match self.unclaimed.checked_sub(length) {
            Some(left) => {
                self.unclaimed = left;
                Ok(())
            }
            None => Err(self.damaged("its tables use parts of the file more than once")),
        }
    }

    /// Claims data at `offset`, whose last block need not be filled by the file: what is missing reads as zeroes.
    pub(super) fn claim_data(&mut self, offset: u64, length: u64) -> Result<(), ImageError> {
        if offset >= self.size {
            return Err(self.cut_short(offset));
        }
        self.claim(length.min(self.size - offset))
    }
}

/// An array of numbers in the file, of which only a part is in memory.
#[derive(Debug)]
pub(super) struct Table {
    at: u64,
    entries: u64,
    width: u64,
    /// Index of the first entry that is held.
    first: u64,
    held: Vec<u8>,
}

impl Table {
    /// A table of `entries` entries of `width` bytes each, a power of two; claims its place in the file.
    pub(super) fn new(
        source: &mut Source,
        at: u64,
        entries: u64,
        width: u64,
    ) -> Result<Self, ImageError> {
        let length = entries.saturating_mul(width);
        source.require(at, length)?;
        source.claim(length)?;
        Ok(Self {
            at,
            entries,
            width,
            first: 0,
            held: Vec::new(),
        })
    }

    /// The bytes of an entry.
    pub(super) fn entry(&mut self, source: &Source, index: u64) -> Result<&[u8], ImageError> {
        if index >= self.entries {
            return Err(source.damaged(format!(
                "a table of {} entries has no entry {index}",
                self.entries
            )));
        }
        let held = self.held.len() as u64 / self.width;
        if index < self.first || index - self.first >= held {
            let count = (WINDOW / self.width).min(self.entries - index);
            self.held.resize((count * self.width) as usize, 0);
            self.first = index;
            source.read(self.at + index * self.width, &mut self.held)?;
        }
        let start = ((index - self.first) * self.width) as usize;
        Ok(&self.held[start..start + self.width as usize])
    }
}

/// Big-endian numbers in a header. What lies outside reads as zero; headers are read whole.
pub(super) mod big {
    pub(in super::super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u32::from_be_bytes(*field))
    }

    pub(in super::super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u64::from_be_bytes(*field))
    }
}

/// Little-endian numbers in a header, likewise.
pub(super) mod little {
    pub(in super::super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u16::from_le_bytes(*field))
    }

    pub(in super::super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u32::from_le_bytes(*field))
    }

    pub(in super::super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u64::from_le_bytes(*field))
    }
}
