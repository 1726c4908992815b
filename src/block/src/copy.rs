//! Copies of disk files: shared extents where the filesystem can, else the
//! allocated ranges only.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::unistd::{Whence, lseek64};

/// Bytes copied between two calls of the progress callback.
const CHUNK: u64 = 16 << 20;

/// How far a copy is. Return [`ControlFlow::Break`] to cancel it.
pub type Progress<'a> = &'a mut dyn FnMut(CopyProgress) -> ControlFlow<()>;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// Position in the file in bytes, holes included.
    pub position: u64,
    /// Length of the file in bytes.
    pub size: u64,
    /// Bytes of data copied so far, holes excluded.
    pub copied: u64,
}

/// A copy that did not finish. The destination has some of the content.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The progress callback said stop.
    #[error("cancelled")]
    Cancelled,
    /// The destination is full.
    #[error("no space left for the copy")]
    NoSpace,
    /// Anything else the host refused.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

impl CopyError {
    pub(crate) fn host(what: &'static str, error: impl Into<io::Error>) -> Self {
        let source = error.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            _ => Self::Host { what, source },
        }
    }
}

/// Makes `to` share all extents of `from` (`FICLONE`); `false` where the two
/// lie on different filesystems or theirs cannot.
///
/// # Errors
/// When the filesystem could but did not.
pub fn share_extents(from: &File, to: &File) -> Result<bool, CopyError> {
    // SAFETY: FICLONE takes a descriptor by value and touches no memory of ours.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    can_share(result, "sharing extents")
}

/// What the result of an ioctl says about sharing.
fn can_share(result: libc::c_int, what: &'static str) -> Result<bool, CopyError> {
    match Errno::result(result) {
        Ok(_) => Ok(true),
        Err(
            Errno::EOPNOTSUPP
            | Errno::EXDEV
            | Errno::EINVAL
            | Errno::ENOTTY
            | Errno::ENOSYS
            | Errno::EPERM
            | Errno::ETXTBSY,
        ) => Ok(false),
        Err(errno) => Err(CopyError::host(what, errno)),
    }
}

/// Makes `length` bytes of `to` share the extents of `from` (`FICLONERANGE`); `false` where the filesystem cannot, or not just there.
pub(crate) fn share_range(
    from: &File,
    from_offset: u64,
    length: u64,
    to: &File,
    to_offset: u64,
) -> Result<bool, CopyError> {
    let range = libc::file_clone_range {
        src_fd: from.as_raw_fd().into(),
        src_offset: from_offset,
        src_length: length,
        dest_offset: to_offset,
    };
    // SAFETY: FICLONERANGE reads the structure, which lives until the call returns.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) };
    can_share(result, "sharing a range")
}

/// Makes a hole of `length` bytes of `to`, which then read as zeroes.
pub(crate) fn punch(to: &File, start: u64, length: u64) -> Result<(), CopyError> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    // No file is longer than what is signed.
    match nix::fcntl::fallocate(to, mode, start.cast_signed(), length.cast_signed()) {
        // Servers of NFS before 4.2, and some since.
        Err(Errno::EOPNOTSUPP) => write_zeroes(to, start, length),
        result => result.map_err(|errno| CopyError::host("making a hole", errno)),
    }
}

fn write_zeroes(to: &File, start: u64, length: u64) -> Result<(), CopyError> {
    let zeroes = vec![0; length.min(1 << 20) as usize];
    let mut done = 0;
    while done < length {
        let part = &zeroes[..zeroes.len().min((length - done) as usize)];
        to.write_all_at(part, start + done)
            .map_err(|error| CopyError::host("writing zeroes", error))?;
        done += part.len() as u64;
    }
    Ok(())
}

/// Copies the data of `from` to the empty file `to`, leaving holes as holes.
///
/// # Errors
/// [`CopyError`].
pub fn sparse(from: &File, to: &File, progress: Progress<'_>) -> Result<(), CopyError> {
    let size = from
        .metadata()
        .map_err(|error| CopyError::host("reading the source's status", error))?
        .len();
    to.set_len(size)
        .map_err(|error| CopyError::host("setting the size", error))?;
    let mut copier = Copier {
        from,
        to,
        in_kernel: true,
        buffer: Vec::new(),
    };
    let mut copied = 0;
    let mut position = 0;
    while let Some((start, end)) = next_data(from, position, size)? {
        position = start;
        while position < end {
            report(progress, position, size, copied)?;
            let count = copier.copy(position, CHUNK.min(end - position))?;
            if count == 0 {
                // The source was cut short meanwhile: what is missing reads as zeroes.
                break;
            }
            position += count;
            copied += count;
        }
        position = end;
    }
    report(progress, size, size, copied)
}

fn report(
    progress: &mut dyn FnMut(CopyProgress) -> ControlFlow<()>,
    position: u64,
    size: u64,
    copied: u64,
) -> Result<(), CopyError> {
    let now = CopyProgress {
        position,
        size,
        copied,
    };
    match progress(now) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CopyError::Cancelled),
    }
}

/// The next range with data at or after `position`, below `size`.
pub(crate) fn next_data(
    file: &File,
    position: u64,
    size: u64,
) -> Result<Option<(u64, u64)>, CopyError> {
    if position >= size {
        return Ok(None);
    }
    let seek = |offset: u64, whence| {
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        lseek64(file, offset, whence).map(i64::cast_unsigned)
    };
    let start = match seek(position, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        // A filesystem without holes: all of it is data.
        Err(Errno::EINVAL) => return Ok(Some((position, size))),
        Err(errno) => return Err(CopyError::host("looking for data", errno)),
    };
    let end = seek(start, Whence::SeekHole)
        .map_err(|errno| CopyError::host("looking for a hole", errno))?;
    // The file may have grown since its size was read.
    let range = (start.min(size), end.min(size));
    Ok((range.0 < range.1).then_some(range))
}

/// Fills `buffer` with what is in `file` at `at`, beyond its end with zeroes.
pub(crate) fn read_padded(file: &File, at: u64, buffer: &mut [u8]) -> Result<(), CopyError> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => {
                buffer[done..].fill(0);
                return Ok(());
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::host("reading the disk", error)),
        }
    }
    Ok(())
}

struct Copier<'a> {
    from: &'a File,
    to: &'a File,
    in_kernel: bool,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies up to `length` bytes at `offset`; zero only at the end of the source.
    fn copy(&mut self, offset: u64, length: u64) -> Result<u64, CopyError> {
        if self.in_kernel {
            match self.copy_in_kernel(offset, length) {
                Err(
                    Errno::EXDEV | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM,
                ) => self.in_kernel = false,
                // Some filesystems answer zero before the end: ask them the other way.
                Ok(0) => self.in_kernel = false,
                Ok(count) => return Ok(count),
                Err(errno) => return Err(CopyError::host("copying", errno)),
            }
        }
        self.copy_through_memory(offset, length)
    }

    fn copy_in_kernel(&self, offset: u64, length: u64) -> nix::Result<u64> {
        let position = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let (mut from, mut to) = (position, position);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        loop {
            let result = nix::fcntl::copy_file_range(
                self.from,
                Some(&mut from),
                self.to,
                Some(&mut to),
                length,
            );
            match result {
                Err(Errno::EINTR) => {}
                result => return result.map(|count| count as u64),
            }
        }
    }

    fn copy_through_memory(&mut self, offset: u64, length: u64) -> Result<u64, CopyError> {
        self.buffer.resize(1 << 20, 0);
        let want = self.buffer.len().min(length as usize);
        let part = &mut self.buffer[..want];
        let count = loop {
            match self.from.read_at(part, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| CopyError::host("reading", error))?,
            }
        };
        self.to
            .write_all_at(&part[..count], offset)
            .map_err(|error| CopyError::host("writing", error))?;
        Ok(count as u64)
    }
}

#[cfg(test)]
mod tests;
