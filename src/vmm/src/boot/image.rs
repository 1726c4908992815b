//! Bytes of a kernel, wherever they are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use lodge_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::memory::{PAGE, map_file};

/// A kernel or initial RAM disk, in a file or unpacked in memory.
pub enum Image<'a> {
    /// A regular file. It is expected not to shrink while its guest lives.
    File(&'a File, u64),
    /// Bytes unpacked by this program.
    Bytes(&'a [u8]),
}

impl<'a> Image<'a> {
    /// The whole of a file.
    ///
    /// # Errors
    /// When its size cannot be told.
    pub fn file(file: &'a File) -> io::Result<Self> {
        Ok(Self::File(file, file.metadata()?.len()))
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(_, length) => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buffer` with what lies at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the image ends before the buffer is full.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file, _) => file.read_exact_at(buffer, offset),
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).ok();
                let part = start
                    .and_then(|start| bytes.get(start..)?.get(..buffer.len()))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }

    /// As many bytes from the start as there are, up to `length`.
    ///
    /// # Errors
    /// From reading the file.
    pub fn head(&self, length: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.len())
            .unwrap_or(usize::MAX)
            .min(length);
        let mut head = vec![0; length];
        self.read_at(0, &mut head)?;
        Ok(head)
    }

    /// Reads a part in order. The file's own position is not used: its
    /// descriptor may be shared with other monitors.
    pub fn reader(&self, offset: u64, length: u64) -> Reader<'_> {
        Reader {
            image: self,
            offset,
            end: offset.saturating_add(length).min(self.len()),
        }
    }

    /// Places `length` bytes from `offset` in guest memory at `base`: whole
    /// pages of a file are mapped, the rest is copied.
    ///
    /// # Errors
    /// When the image ends before, or guest memory does.
    pub fn place(
        &self,
        memory: &GuestMemory,
        offset: u64,
        base: u64,
        length: u64,
    ) -> io::Result<()> {
        let end = offset.checked_add(length).filter(|&end| end <= self.len());
        let (Some(_), Ok(size)) = (end, usize::try_from(length)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let target = GuestAddress(base);
        if !memory.check_range(target, size) {
            return Err(io::Error::other("outside guest memory"));
        }
        match self {
            Self::Bytes(bytes) => {
                let start = offset as usize;
                memory
                    .write_slice(&bytes[start..start + size], target)
                    .map_err(io::Error::other)
            }
            Self::File(file, _) => place_file(memory, file, offset, base, length),
        }
    }
}

/// See [`Image::reader`].
pub struct Reader<'a> {
    image: &'a Image<'a>,
    offset: u64,
    end: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.offset);
        let size = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        self.image.read_at(self.offset, &mut buffer[..size])?;
        self.offset += size as u64;
        Ok(size)
    }
}

fn place_file(
    memory: &GuestMemory,
    file: &File,
    offset: u64,
    base: u64,
    length: u64,
) -> io::Result<()> {
    let lead = base.wrapping_neg() % PAGE;
    let mappable = (base % PAGE == offset % PAGE && length > lead)
        .then(|| (length - lead) / PAGE * PAGE)
        .filter(|&pages| pages > 0);
    let Some(pages) = mappable else {
        return copy_file(memory, file, offset, base, length);
    };
    copy_file(memory, file, offset, base, lead)?;
    map_file(memory, file, offset + lead, base + lead, pages)?;
    let done = lead + pages;
    copy_file(memory, file, offset + done, base + done, length - done)
}

fn copy_file(
    memory: &GuestMemory,
    file: &File,
    mut offset: u64,
    mut base: u64,
    mut length: u64,
) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    while length > 0 {
        let size = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = &mut buffer[..size];
        file.read_exact_at(part, offset)?;
        memory
            .write_slice(part, GuestAddress(base))
            .map_err(io::Error::other)?;
        offset += size as u64;
        base += size as u64;
        length -= size as u64;
    }
    Ok(())
}
