//! Guest memory: reserved address space that takes host memory only as it is touched.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use lodge_devices::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestRegionMmap, MmapRegion};

use crate::layout::{HIGH_MEMORY_BASE, LOW_MEMORY_END};

/// Size of a page in bytes.
pub const PAGE: u64 = 4096;

/// Guest memory that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused to reserve the address space.
    #[error("cannot reserve {bytes} bytes of guest memory: {source}")]
    Reserve {
        /// How much.
        bytes: u64,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// Not the file of this memory.
    #[error("the saved memory has {found} bytes, the guest's has {bytes}")]
    Saved {
        /// Length of the file.
        found: u64,
        /// What it should be.
        bytes: u64,
    },
    /// A size no host can map.
    #[error("{0} bytes of guest memory are beyond this machine's address space")]
    TooLarge(u64),
}

/// Ranges of guest-physical memory, `(base, length)`, for a guest with `bytes` in all.
pub fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(LOW_MEMORY_END);
    let mut ranges = vec![(0, low)];
    if bytes > low {
        ranges.push((HIGH_MEMORY_BASE, bytes - low));
    }
    ranges
}

/// Reserves memory for a guest; all of it reads as zero.
///
/// # Errors
/// When the host has no such address space.
pub fn reserve(bytes: u64) -> Result<GuestMemory, MemoryError> {
    let too_large = || MemoryError::TooLarge(bytes);
    let mut regions = Vec::new();
    for (base, length) in ranges(bytes) {
        let length = usize::try_from(length).map_err(|_| too_large())?;
        let mapping = MmapRegion::build(
            None,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        )
        .map_err(|error| MemoryError::Reserve {
            bytes,
            source: io::Error::other(error),
        })?;
        exclude_from_core_dumps(&mapping);
        let region = GuestRegionMmap::new(mapping, GuestAddress(base)).ok_or_else(too_large)?;
        regions.push(region);
    }
    GuestMemory::from_regions(regions).map_err(|_| too_large())
}

/// Memory that begins as it was saved in `file`, low memory first, high memory right behind it. Pages are read when they are
/// touched, and shared with the host's page cache until the guest writes to them.
///
/// # Errors
/// When the file does not have that length, or the host has no such address space.
pub fn map_saved(bytes: u64, file: &File) -> Result<GuestMemory, MemoryError> {
    let reserve = |source| MemoryError::Reserve { bytes, source };
    let found = file.metadata().map_err(reserve)?.len();
    if found != bytes {
        return Err(MemoryError::Saved { found, bytes });
    }
    let memory = self::reserve(bytes)?;
    let mut offset = 0;
    for (base, length) in ranges(bytes) {
        map_file(&memory, file, offset, base, length).map_err(reserve)?;
        offset += length;
    }
    Ok(memory)
}

/// Puts fresh memory in place of all that came from files: it reads as zero again.
///
/// # Errors
/// From `mmap(2)`.
pub fn blank(memory: &GuestMemory) -> io::Result<()> {
    for region in memory.iter() {
        let mapping = region.get_mmap();
        // SAFETY: the range is one mapping that `memory` owns and unmaps as a whole; replacing its pages by others with
        // the same protection keeps every pointer into it valid.
        let mapped = unsafe {
            libc::mmap(
                mapping.as_ptr().cast(),
                mapping.size(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        exclude_from_core_dumps(&mapping);
    }
    Ok(())
}

/// Gives all memory back to the host. The guest sees what it saw at first:
/// zeroes, or the file where [`map_file`] has put one.
///
/// # Errors
/// From `madvise(2)`.
pub fn forget(memory: &GuestMemory) -> io::Result<()> {
    for region in memory.iter() {
        let mapping = region.get_mmap();
        // SAFETY: the range is one mapping that `memory` owns. Guest memory is
        // only ever accessed as volatile bytes, for which any content is valid.
        let result =
            unsafe { libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Gives the pages of a range of guest-physical memory back to the host; the guest then sees what
/// [`forget`] makes it see. Everything must be page-aligned.
///
/// # Errors
/// When something is not aligned or not in memory; from `madvise(2)`.
pub fn discard(memory: &GuestMemory, range: Range<u64>) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    if !range.start.is_multiple_of(PAGE) || !range.end.is_multiple_of(PAGE) {
        return Err(invalid());
    }
    let length = range.end.checked_sub(range.start).ok_or_else(invalid)?;
    let length = usize::try_from(length).map_err(|_| invalid())?;
    for slice in memory.get_slices(GuestAddress(range.start), length) {
        let slice = slice.map_err(|_| invalid())?;
        // SAFETY: the slice is a page-aligned part of a mapping that `memory` owns. Guest memory
        // is only ever accessed as volatile bytes, for which any content is valid.
        let result = unsafe {
            let start = slice.ptr_guard_mut().as_ptr().cast();
            libc::madvise(start, slice.len(), libc::MADV_DONTNEED)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Puts a private, writable view of `length` bytes of `file` from `offset` into
/// guest memory at `base`. Pages are shared with the host's page cache until
/// the guest writes to them. Everything must be page-aligned.
///
/// # Errors
/// When something is not aligned, not in one range of memory, or not mappable.
pub fn map_file(
    memory: &GuestMemory,
    file: &File,
    offset: u64,
    base: u64,
    length: u64,
) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    if [offset, base, length].iter().any(|n| n % PAGE != 0) {
        return Err(invalid());
    }
    let length = usize::try_from(length).map_err(|_| invalid())?;
    let offset = libc::off_t::try_from(offset).map_err(|_| invalid())?;
    let target = memory
        .get_slice(GuestAddress(base), length)
        .map_err(|_| invalid())?;
    // SAFETY: the target is a page-aligned part of a private mapping that
    // `memory` owns and unmaps as a whole; replacing its pages by others with
    // the same protection keeps every pointer into it valid.
    let mapped = unsafe {
        libc::mmap(
            target.ptr_guard_mut().as_ptr().cast(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reads `length` bytes of `file` from `offset` straight into guest memory at
/// `base`. The file's own position is not used: its descriptor may be shared.
///
/// # Errors
/// `UnexpectedEof` when the file ends before, and when guest memory does.
pub fn read_file(
    memory: &GuestMemory,
    file: &File,
    mut offset: u64,
    base: u64,
    length: u64,
) -> io::Result<()> {
    let outside = || io::Error::other("outside guest memory");
    let length = usize::try_from(length).map_err(|_| outside())?;
    let target = memory
        .get_slice(GuestAddress(base), length)
        .map_err(|_| outside())?;
    let guard = target.ptr_guard_mut();
    let mut done = 0;
    while done < length {
        let at = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        // SAFETY: the rest of the slice is mapped and writable for as long as
        // `memory` lives, and guest memory may hold any bytes at any time.
        let count = unsafe {
            let start = guard.as_ptr().add(done).cast();
            libc::pread(file.as_raw_fd(), start, length - done, at)
        };
        match usize::try_from(count) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                done += count;
                offset += count as u64;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// A guest's secrets do not belong in a monitor's core dump.
fn exclude_from_core_dumps(mapping: &MmapRegion) {
    // SAFETY: the range is exactly the mapping; the advice changes no content.
    // Failure is harmless: the jail forbids core dumps anyway.
    unsafe { libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_DONTDUMP) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::Bytes;

    #[test]
    fn memory_is_split_around_the_hole() {
        assert_eq!(ranges(64 << 20), [(0, 64 << 20)]);
        assert_eq!(ranges(LOW_MEMORY_END), [(0, LOW_MEMORY_END)]);
        assert_eq!(
            ranges(LOW_MEMORY_END + PAGE),
            [(0, LOW_MEMORY_END), (HIGH_MEMORY_BASE, PAGE)]
        );
    }

    #[test]
    fn huge_memory_is_an_error() {
        assert!(reserve(!(PAGE - 1)).is_err());
    }

    #[test]
    fn a_mapped_file_comes_back_when_memory_is_forgotten() {
        let memory = reserve(1 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        map_file(&memory, &file, 4096, 0x2000, 4096).unwrap();
        let read = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!(
            [read(0x1fff), read(0x2000), read(0x2fff), read(0x3000)],
            [0, 7, 7, 0]
        );
        memory.write_obj(1_u8, GuestAddress(0x2000)).unwrap();
        memory.write_obj(1_u8, GuestAddress(0x1000)).unwrap();
        forget(&memory).unwrap();
        assert_eq!([read(0x1000), read(0x2000)], [0, 7]);
    }

    #[test]
    fn discarded_pages_hold_what_they_held_at_first() {
        let memory = reserve(1 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 4096]).unwrap();
        map_file(&memory, &file, 0, 0x2000, 4096).unwrap();
        let pages = [0x1000, 0x2000, 0x3000];
        for at in pages {
            memory.write_obj(1_u8, GuestAddress(at)).unwrap();
        }
        discard(&memory, 0x1000..0x3000).unwrap();
        let seen = pages.map(|at| memory.read_obj::<u8>(GuestAddress(at)).unwrap());
        assert_eq!(seen, [0, 7, 1]);
        discard(&memory, 0x3000..0x3000).unwrap();
        let end = 1 << 20;
        #[allow(clippy::reversed_empty_ranges)]
        for bad in [
            1..0x1000,
            0x1000..0x1001,
            0x2000..0x1000,
            end - 0x1000..end + 0x1000,
            end..end + 0x1000,
        ] {
            assert!(discard(&memory, bad.clone()).is_err(), "{bad:x?}");
        }
    }

    #[test]
    fn a_mapping_must_be_aligned_and_inside() {
        let memory = reserve(1 << 20).unwrap();
        let file = tempfile::tempfile().unwrap();
        for (offset, base, length) in [
            (1, 0, 4096),
            (0, 1, 4096),
            (0, 0, 1),
            (0, (1 << 20) - 4096, 8192),
            (0, 1 << 40, 4096),
            (u64::MAX - 4095, 0, 4096),
        ] {
            assert!(map_file(&memory, &file, offset, base, length).is_err());
        }
    }
}
