//! An open raw disk: a regular file or a block device, and what it can do.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag};

use crate::SECTOR;

/// Largest disk in bytes: what file offsets can address, less one block.
pub const MAX_SIZE: u64 = (1 << 63) - 4096;

/// What `O_DIRECT` asks of buffers in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Of each buffer's address, in bytes.
    pub address: u32,
    /// Of each buffer's length, in bytes.
    pub length: u32,
}

/// Enough for any filesystem, where the kernel does not tell.
const SAFE_ALIGNMENT: Alignment = Alignment {
    address: 4096,
    length: 4096,
};

mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
    nix::ioctl_read_bad!(blkpbszget, 0x127b, libc::c_uint);
    nix::ioctl_read_bad!(blkroget, 0x125e, libc::c_int);
}

/// What a disk is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A block device of the host.
    BlockDevice,
}

/// An open raw disk.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    kind: Kind,
    size: AtomicU64,
    read_only: bool,
    discard: bool,
    logical_block: u32,
    physical_block: u32,
    direct: Option<Alignment>,
}

/// A descriptor that cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// Neither a regular file nor a block device.
    #[error("the descriptor is neither a regular file nor a block device")]
    Kind,
    /// It cannot be read.
    #[error("the descriptor is not open for reading")]
    Access,
    /// No length a disk can have.
    #[error("size {0} bytes is not a positive multiple of 512; pad the image to one")]
    Size(u64),
    /// Another process holds the disk.
    #[error("the disk is in use by another guest")]
    InUse,
    /// The host refused.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

impl RawError {
    fn host(what: &'static str, error: impl Into<io::Error>) -> Self {
        Self::Host {
            what,
            source: error.into(),
        }
    }
}

impl RawDisk {
    /// Looks at an open descriptor. Its access mode decides whether the disk is
    /// read-only, its `O_DIRECT` flag whether the page cache is passed by.
    ///
    /// `O_DIRECT` is switched off again where it would show a guest larger
    /// sectors than its disk was made with (files on 4096-byte-sector devices).
    ///
    /// # Errors
    /// [`RawError`].
    pub fn open(fd: OwnedFd) -> Result<Self, RawError> {
        Self::open_as(fd, false)
    }

    /// Takes over an open file or block device that will only be read, whatever its descriptor allows.
    ///
    /// # Errors
    /// As [`RawDisk::open`].
    pub fn open_for_reading(fd: OwnedFd) -> Result<Self, RawError> {
        Self::open_as(fd, true)
    }

    fn open_as(fd: OwnedFd, read_only: bool) -> Result<Self, RawError> {
        let file = File::from(fd);
        let metadata = file
            .metadata()
            .map_err(|error| RawError::host("reading the disk's status", error))?;
        let kind = if metadata.is_file() {
            Kind::File
        } else if metadata.file_type().is_block_device() {
            Kind::BlockDevice
        } else {
            return Err(RawError::Kind);
        };
        let flags = nix::fcntl::fcntl(&file, FcntlArg::F_GETFL)
            .map_err(|errno| RawError::host("reading the descriptor's flags", errno))?;
        let flags = OFlag::from_bits_retain(flags);
        let mode = flags & OFlag::O_ACCMODE;
        if mode != OFlag::O_RDONLY && mode != OFlag::O_RDWR {
            return Err(RawError::Access);
        }
        let mut disk = Self {
            size: AtomicU64::new(size_of(&file, kind)?),
            file,
            kind,
            read_only: read_only || mode == OFlag::O_RDONLY,
            discard: false,
            logical_block: SECTOR as u32,
            physical_block: 4096,
            direct: flags.contains(OFlag::O_DIRECT).then_some(SAFE_ALIGNMENT),
        };
        if kind == Kind::BlockDevice {
            disk.ask_block_device()?;
        }
        disk.settle_direct(flags)?;
        disk.discard = !disk.read_only && disk.probe_discard();
        Ok(disk)
    }

    /// File or block device.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Length in bytes, a multiple of 512.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Asks the host for the length again, after the disk was grown.
    ///
    /// # Errors
    /// [`RawError::Size`] when it is no longer a disk's; the old length stays.
    pub fn refresh_size(&self) -> Result<u64, RawError> {
        let size = size_of(&self.file, self.kind)?;
        self.size.store(size, Ordering::Release);
        Ok(size)
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether discarded ranges give their space back.
    pub fn discard(&self) -> bool {
        self.discard
    }

    /// Least unit of access in bytes: 512, or 4096 on some block devices.
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// Unit in bytes below which a write costs a read; a power of two, at least the logical block.
    pub fn physical_block(&self) -> u32 {
        self.physical_block
    }

    /// Whether the page cache is passed by.
    pub fn direct(&self) -> bool {
        self.direct.is_some()
    }

    /// What buffers need for `O_DIRECT`; `None` when the page cache takes anything.
    pub(crate) fn alignment(&self) -> Option<Alignment> {
        self.direct
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Claims the disk: alone when it is writable, else together with other
    /// readers. The claim ends with the last copy of the descriptor, so a crash frees it.
    ///
    /// # Errors
    /// [`RawError::InUse`].
    pub fn claim(&self) -> Result<(), RawError> {
        let kind = if self.read_only {
            libc::F_RDLCK
        } else {
            libc::F_WRLCK
        };
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match nix::fcntl::fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(RawError::InUse),
            Err(errno) => Err(RawError::host("claiming the disk", errno)),
        }
    }

    fn ask_block_device(&mut self) -> Result<(), RawError> {
        let fd = self.file.as_raw_fd();
        let (mut logical, mut physical, mut read_only) = (0, 0, 0);
        // SAFETY: each ioctl fills the integer it is given.
        unsafe {
            ioctl::blksszget(fd, &raw mut logical)
                .and_then(|_| ioctl::blkpbszget(fd, &raw mut physical))
                .and_then(|_| ioctl::blkroget(fd, &raw mut read_only))
        }
        .map_err(|errno| RawError::host("asking for the block size", errno))?;
        let logical = logical.cast_unsigned();
        if !logical.is_power_of_two() || u64::from(logical) < SECTOR {
            return Err(RawError::host(
                "asking for the block size",
                io::Error::other(format!("the device says {logical}")),
            ));
        }
        self.logical_block = logical;
        self.physical_block = if physical.is_power_of_two() {
            physical.max(logical)
        } else {
            logical
        };
        self.read_only |= read_only != 0;
        Ok(())
    }

    /// Finds the alignment `O_DIRECT` needs, or switches it off.
    fn settle_direct(&mut self, flags: OFlag) -> Result<(), RawError> {
        if self.direct.is_none() {
            return Ok(());
        }
        let Some((memory, offset)) = direct_alignment(&self.file) else {
            return Ok(());
        };
        if memory != 0 && offset <= self.logical_block {
            self.direct = Some(Alignment {
                address: memory,
                length: offset,
            });
            return Ok(());
        }
        nix::fcntl::fcntl(&self.file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))
            .map_err(|errno| RawError::host("switching O_DIRECT off", errno))?;
        tracing::info!(
            memory,
            offset,
            "disk goes through the page cache: direct I/O would need larger sectors"
        );
        self.direct = None;
        Ok(())
    }

    /// Tries a discard that touches nothing.
    fn probe_discard(&self) -> bool {
        match self.kind {
            Kind::File => {
                let mode =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                // Behind the end there is nothing to punch, but an answer.
                let end = self.size() as i64;
                nix::fcntl::fallocate(&self.file, mode, end, 4096).is_ok()
            }
            // What cannot be discarded there stays, and nobody is worse off.
            Kind::BlockDevice => true,
        }
    }
}

impl AsFd for RawDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn size_of(file: &File, kind: Kind) -> Result<u64, RawError> {
    let size = match kind {
        Kind::File => file
            .metadata()
            .map_err(|error| RawError::host("reading the disk's size", error))?
            .len(),
        Kind::BlockDevice => {
            let mut size = 0;
            // SAFETY: BLKGETSIZE64 fills the integer it is given.
            unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &raw mut size) }
                .map_err(|errno| RawError::host("reading the device's size", errno))?;
            size
        }
    };
    if size == 0 || !size.is_multiple_of(SECTOR) || size > MAX_SIZE {
        return Err(RawError::Size(size));
    }
    Ok(size)
}

/// Memory and offset alignment of `O_DIRECT` in bytes (`STATX_DIOALIGN`, Linux
/// 6.1); zeroes when the file does not support it, `None` when nobody knows.
fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a C string, and statx fills the structure it is given.
    let status = unsafe {
        let result = libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            status.as_mut_ptr(),
        );
        if result != 0 {
            return None;
        }
        status.assume_init()
    };
    (status.stx_mask & libc::STATX_DIOALIGN != 0)
        .then_some((status.stx_dio_mem_align, status.stx_dio_offset_align))
}

#[cfg(test)]
mod tests;
