//! Where a file's data are on its filesystem (`FS_IOC_FIEMAP`; Linux, Documentation/filesystems/fiemap.rst).
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::copy::CopyError;

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;

/// What is not on the disk yet gets there first.
const FLAG_SYNC: u32 = 1 << 0;

mod flag {
    pub const LAST: u32 = 1 << 0;
    pub const UNKNOWN: u32 = 1 << 1;
    pub const DELAYED: u32 = 1 << 2;
    pub const ENCODED: u32 = 1 << 3;
    pub const NOT_ALIGNED: u32 = 1 << 8;
    pub const INLINE: u32 = 1 << 9;
    pub const TAIL: u32 = 1 << 10;
    /// Allocated, and reads as zeroes.
    pub const UNWRITTEN: u32 = 1 << 11;

    /// Whoever has such an extent does not have it alone, or not there.
    pub const NO_PLACE: u32 = UNKNOWN | DELAYED | ENCODED | NOT_ALIGNED | INLINE | TAIL;
}

/// Extents asked for at a time: a file may have any number of them.
const BATCH: usize = 256;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_2: [u32; 3],
}

/// `struct fiemap`, with room for extents.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [RawExtent; BATCH],
}

/// Data of a file that lie in one piece on the filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// In the file, in bytes.
    pub range: Range<u64>,
    /// On the filesystem, if that says what they are.
    pub place: Option<u64>,
}

impl Extent {
    /// Where the byte `at` of the file is.
    pub fn place_of(&self, at: u64) -> Option<u64> {
        self.place?.checked_add(at.checked_sub(self.range.start)?)
    }
}

/// The extents of a file in order, without those that read as zeroes.
pub(super) struct Extents<'a> {
    file: &'a File,
    batch: VecDeque<Extent>,
    /// Where the next batch begins, unless there is none.
    next: Option<u64>,
}

impl<'a> Extents<'a> {
    /// Those of `file`; nothing where the filesystem does not tell.
    ///
    /// # Errors
    /// When it could, but does not.
    pub fn of(file: &'a File) -> Result<Option<Self>, CopyError> {
        let mut extents = Self {
            file,
            batch: VecDeque::new(),
            next: Some(0),
        };
        match extents.fetch() {
            Ok(()) => Ok(Some(extents)),
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS | Errno::EBADR) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The extent that is next, which stays it.
    ///
    /// # Errors
    /// When the filesystem does not tell any more.
    pub fn peek(&mut self) -> Result<Option<&Extent>, CopyError> {
        while self.batch.is_empty() && self.next.is_some() {
            self.fetch().map_err(failed)?;
        }
        Ok(self.batch.front())
    }

    /// Goes on to the one after.
    pub fn advance(&mut self) {
        self.batch.pop_front();
    }

    fn fetch(&mut self) -> Result<(), Errno> {
        let Some(start) = self.next.take() else {
            return Ok(());
        };
        let mut request = Box::new(Request {
            start,
            length: u64::MAX - start,
            flags: FLAG_SYNC,
            mapped: 0,
            count: BATCH as u32,
            reserved: 0,
            extents: [RawExtent::default(); BATCH],
        });
        let address = std::ptr::from_mut(request.as_mut());
        // SAFETY: FS_IOC_FIEMAP reads the structure at the address, and writes it and as many extents behind it as `count` says,
        // which is how many there is room for; it lives until the call returns.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), FS_IOC_FIEMAP, address) };
        Errno::result(result)?;
        let mapped = (request.mapped as usize).min(BATCH);
        for raw in &request.extents[..mapped] {
            let end = raw.logical.saturating_add(raw.length);
            // Kernels give them in order, and none that is empty. Should one not, nothing that it told is taken for all there is.
            if end <= start.max(raw.logical) {
                return Err(Errno::EIO);
            }
            self.next = (raw.flags & flag::LAST == 0).then_some(end);
            if raw.flags & flag::UNWRITTEN == 0 {
                self.batch.push_back(Extent {
                    range: raw.logical..end,
                    place: (raw.flags & flag::NO_PLACE == 0).then_some(raw.physical),
                });
            }
        }
        Ok(())
    }
}

fn failed(errno: Errno) -> CopyError {
    CopyError::host("asking for the extents of a disk", errno)
}
