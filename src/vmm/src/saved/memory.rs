//! A guest's memory on its way into a file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use lodge_devices::GuestMemory;
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::memory::PAGE;

/// Pages looked at together: 1 MiB.
const BATCH: u64 = 256;

/// Bits of an entry (Linux, Documentation/admin-guide/mm/pagemap.rst): present, in swap, of a file.
const IN_USE: u64 = 1 << 63 | 1 << 62 | 1 << 61;

/// Which of this process's pages have ever been touched, so that the others need not be read: each
/// that is would take a page table's entry for nothing but zeroes.
pub struct Pagemap(Option<File>);

impl Pagemap {
    /// Opens it, which has to be done where there is `/proc`. Where there is none all pages are taken for touched.
    pub fn open() -> Self {
        Self(File::open("/proc/self/pagemap").ok())
    }

    /// Tells for each page from the address `start`.
    fn touched(&self, start: usize, pages: usize) -> Vec<bool> {
        let Some(file) = &self.0 else {
            return vec![true; pages];
        };
        let mut entries = vec![0; pages * 8];
        let at = start as u64 / PAGE * 8;
        if file.read_exact_at(&mut entries, at).is_err() {
            return vec![true; pages];
        }
        let entries = entries.chunks_exact(8);
        entries
            .map(|entry| {
                let entry = u64::from_le_bytes(entry.try_into().unwrap_or([0xff; 8]));
                entry & IN_USE != 0
            })
            .collect()
    }
}

/// Copies guest memory to the same place of `file`, which is new: pages of zeroes stay holes. `range` counts bytes of all
/// memory, without the hole between low and high, and is cut to what there is. Returns how many bytes were written.
///
/// Pages in `mapped`, ranges of guest-physical addresses, come from files: untouched they are not zeroes.
///
/// # Errors
/// From writing the file.
pub fn copy(
    memory: &GuestMemory,
    mapped: &[Range<u64>],
    pagemap: &Pagemap,
    range: Range<u64>,
    file: &File,
) -> io::Result<u64> {
    let mut written = 0;
    let mut base = 0;
    for region in memory.iter() {
        let length = region.len();
        let start = range.start.clamp(base, base + length) - base;
        let end = range.end.clamp(base, base + length) - base;
        let mut at = start / PAGE * PAGE;
        while at < end {
            let pages = BATCH.min((end - at).div_ceil(PAGE));
            let host = region.get_mmap().as_ptr() as usize + at as usize;
            let touched = pagemap.touched(host, pages as usize);
            for (page, touched) in (at..).step_by(PAGE as usize).zip(touched) {
                let guest = region.start_addr().0 + page;
                if touched || mapped.iter().any(|range| range.contains(&guest)) {
                    written += copy_page(region, page, file, base + page)?;
                }
            }
            at += pages * PAGE;
        }
        base += length;
    }
    Ok(written)
}

fn copy_page<R>(region: &R, page: u64, file: &File, at: u64) -> io::Result<u64>
where
    R: GuestMemoryRegion + Bytes<MemoryRegionAddress>,
{
    let mut bytes = [0; PAGE as usize];
    region
        .read_slice(&mut bytes, MemoryRegionAddress(page))
        .map_err(|_| io::Error::other("guest memory"))?;
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(0);
    }
    file.write_all_at(&bytes, at)?;
    Ok(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{map_file, map_saved, reserve};
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use vm_memory::GuestAddress;

    const SIZE: u64 = 8 << 20;

    fn saved(memory: &GuestMemory, mapped: &[Range<u64>], pagemap: &Pagemap) -> (File, u64) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let mut written = 0;
        // In pieces, as managers ask for it, and beyond the end.
        for start in (0..SIZE + 4 * PAGE).step_by(3 << 20) {
            let piece = start..start + (3 << 20);
            written += copy(memory, mapped, pagemap, piece, &file).unwrap();
        }
        (file, written)
    }

    #[test]
    fn what_was_written_comes_back_and_nothing_else_takes_room() {
        for pagemap in [Pagemap::open(), Pagemap(None)] {
            let memory = reserve(SIZE).unwrap();
            let mut kernel = tempfile::tempfile().unwrap();
            kernel.write_all(&[7; 8192]).unwrap();
            map_file(&memory, &kernel, 0, 0x10_0000, 8192).unwrap();
            let addresses = [0, 0x1fff, 0x10_0000, SIZE - 1];
            for (value, at) in (1_u8..).zip(addresses) {
                memory.write_obj(value, GuestAddress(at)).unwrap();
            }
            let kernel_range = 0x10_0000..0x10_2000;
            let (file, written) = saved(&memory, std::slice::from_ref(&kernel_range), &pagemap);
            assert_eq!(written, 5 * PAGE);
            assert!(file.metadata().unwrap().blocks() * 512 < 64 << 10);
            let restored = map_saved(SIZE, &file).unwrap();
            let read = |at| restored.read_obj::<u8>(GuestAddress(at)).unwrap();
            assert_eq!(addresses.map(read), [1, 2, 3, 4]);
            assert_eq!(
                [0x2000, 0x10_0001, 0x10_1fff, 0x10_2000].map(read),
                [0, 7, 7, 0]
            );
            // Saved once more, with all of it from a file.
            let all = 0..SIZE;
            let (again, written) = saved(&restored, std::slice::from_ref(&all), &pagemap);
            assert_eq!(written, 5 * PAGE);
            let content = |file: &File| {
                let mut bytes = vec![0; SIZE as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            };
            assert!(content(&file) == content(&again));
        }
    }
}
