//! A kernel or initial RAM disk as a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use lodge_devices::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::memory::{PAGE, map_file, read_file};

/// A regular file of known length. It is expected not to shrink while its guest lives.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    file: &'a File,
    length: u64,
}

impl<'a> Image<'a> {
    /// The whole of a file.
    ///
    /// # Errors
    /// When its size cannot be told.
    pub fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self {
            file,
            length: file.metadata()?.len(),
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` with what lies at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the image ends before the buffer is full.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// As many bytes from the start as there are, up to `length`.
    ///
    /// # Errors
    /// From reading the file.
    pub fn head(&self, length: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.length)
            .unwrap_or(usize::MAX)
            .min(length);
        let mut head = vec![0; length];
        self.read_at(0, &mut head)?;
        Ok(head)
    }

    /// Reads a part in order. The file's own position is not used: its
    /// descriptor may be shared with other monitors.
    pub fn reader(&self, offset: u64, length: u64) -> Reader<'a> {
        Reader {
            image: *self,
            offset,
            end: offset.saturating_add(length).min(self.length),
        }
    }

    /// Copies `length` bytes from `offset` to guest memory at `base`.
    ///
    /// Kernels are copied: they patch nearly every page of their code while they
    /// start, so that little would stay shared, and in large pages they
    /// start faster than the copy takes.
    ///
    /// # Errors
    /// When the image ends before, or guest memory does.
    pub fn copy(
        &self,
        memory: &GuestMemory,
        offset: u64,
        base: u64,
        length: u64,
    ) -> io::Result<()> {
        self.check(offset, length)?;
        read_file(memory, self.file, offset, base, length)
    }

    /// Places the whole at `base`, a multiple of the page size: whole pages are
    /// mapped and stay shared with the host's page cache, the rest is copied.
    ///
    /// # Errors
    /// When guest memory ends before.
    pub fn map(&self, memory: &GuestMemory, base: u64) -> io::Result<()> {
        let inside = usize::try_from(self.length)
            .is_ok_and(|length| memory.check_range(GuestAddress(base), length));
        if !inside {
            return Err(io::Error::other("outside guest memory"));
        }
        let pages = self.length / PAGE * PAGE;
        if pages > 0 {
            map_file(memory, self.file, 0, base, pages)?;
        }
        read_file(memory, self.file, pages, base + pages, self.length - pages)
    }

    fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// See [`Image::reader`].
pub struct Reader<'a> {
    image: Image<'a>,
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
