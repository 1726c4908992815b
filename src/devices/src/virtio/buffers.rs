//! The buffers of one descriptor chain: checked pieces of guest memory, in order.

use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::chain::ChainError;
use crate::GuestMemory;

/// One piece of guest memory. It was inside guest memory when its chain was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address of the first byte.
    pub address: GuestAddress,
    /// Length in bytes, at least 1.
    pub length: u32,
}

/// A list of segments read or written as if it were one run of bytes.
///
/// It holds addresses rather than pointers: nothing here goes stale, and a
/// device that hands pointers to the kernel asks for them ([`Buffers::iovecs`])
/// while it holds the memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buffers {
    segments: Vec<Segment>,
    bytes: u64,
}

impl Buffers {
    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The pieces, in the driver's order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.bytes = 0;
    }

    pub(crate) fn push(&mut self, segment: Segment) {
        self.bytes += u64::from(segment.length);
        self.segments.push(segment);
    }

    /// Copies the bytes at `offset` out of guest memory.
    ///
    /// # Errors
    /// [`ChainError::Short`] when there are fewer bytes; nothing was copied then.
    pub fn read_at(
        &self,
        memory: &GuestMemory,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), ChainError> {
        self.for_each(offset, data.len(), |address, range| {
            memory
                .read_slice(&mut data[range], address)
                .map_err(|_| ChainError::Memory { address: address.0 })
        })
    }

    /// Copies `data` into guest memory at `offset`.
    ///
    /// # Errors
    /// [`ChainError::Short`] when there is less room; nothing was copied then.
    pub fn write_at(
        &self,
        memory: &GuestMemory,
        offset: u64,
        data: &[u8],
    ) -> Result<(), ChainError> {
        self.for_each(offset, data.len(), |address, range| {
            memory
                .write_slice(&data[range], address)
                .map_err(|_| ChainError::Memory { address: address.0 })
        })
    }

    /// Reads a structure at `offset`, however the driver split it.
    ///
    /// # Errors
    /// As [`Buffers::read_at`].
    pub fn read_obj<T: ByteValued + Default>(
        &self,
        memory: &GuestMemory,
        offset: u64,
    ) -> Result<T, ChainError> {
        let mut value = T::default();
        self.read_at(memory, offset, value.as_mut_slice())?;
        Ok(value)
    }

    /// Writes a structure at `offset`, however the driver split it.
    ///
    /// # Errors
    /// As [`Buffers::write_at`].
    pub fn write_obj<T: ByteValued>(
        &self,
        memory: &GuestMemory,
        offset: u64,
        value: &T,
    ) -> Result<(), ChainError> {
        self.write_at(memory, offset, value.as_slice())
    }

    /// Drops the first `count` bytes, e.g. a header already read.
    ///
    /// # Errors
    /// [`ChainError::Short`], and nothing is dropped.
    pub fn advance(&mut self, count: u64) -> Result<(), ChainError> {
        self.require(count)?;
        let mut left = count;
        let mut whole = 0;
        for segment in &mut self.segments {
            let length = u64::from(segment.length);
            if left < length {
                // `left` is less than a u32, and the segment lies in guest memory, so neither wraps.
                segment.address.0 += left;
                segment.length -= left as u32;
                break;
            }
            left -= length;
            whole += 1;
        }
        self.segments.drain(..whole);
        self.bytes -= count;
        Ok(())
    }

    /// Drops all but the first `count` bytes; e.g. splits off a trailing status byte.
    ///
    /// # Errors
    /// [`ChainError::Short`] when there are fewer, and nothing is dropped.
    pub fn truncate(&mut self, count: u64) -> Result<(), ChainError> {
        self.require(count)?;
        let mut left = count;
        let mut keep = 0;
        for segment in &mut self.segments {
            if left == 0 {
                break;
            }
            let length = left.min(u64::from(segment.length));
            segment.length = length as u32;
            left -= length;
            keep += 1;
        }
        self.segments.truncate(keep);
        self.bytes = count;
        Ok(())
    }

    /// Appends host pointers to `list`, for readv, writev and io_uring. A segment
    /// that spans two memory regions gives two entries.
    ///
    /// The pointers are good for as long as the caller keeps `memory`. The guest
    /// may change what they point to at any time.
    ///
    /// # Errors
    /// [`ChainError::Memory`] when a segment is not in guest memory; `list` is as before.
    pub fn iovecs(
        &self,
        memory: &GuestMemory,
        list: &mut Vec<libc::iovec>,
    ) -> Result<(), ChainError> {
        let before = list.len();
        for segment in &self.segments {
            let outside = ChainError::Memory {
                address: segment.address.0,
            };
            let slices = memory.get_slices(
                segment.address,
                segment.length as usize,
                Permissions::ReadWrite,
            );
            for slice in slices.into_iter().flatten() {
                let Ok(slice) = slice else {
                    list.truncate(before);
                    return Err(outside);
                };
                list.push(libc::iovec {
                    iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                    iov_len: slice.len(),
                });
            }
        }
        Ok(())
    }

    fn require(&self, needed: u64) -> Result<(), ChainError> {
        if needed > self.bytes {
            return Err(ChainError::Short {
                needed,
                present: self.bytes,
            });
        }
        Ok(())
    }

    fn for_each(
        &self,
        offset: u64,
        length: usize,
        mut piece: impl FnMut(GuestAddress, std::ops::Range<usize>) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        self.require(offset.saturating_add(length as u64))?;
        let mut skip = offset;
        let mut done = 0;
        for segment in &self.segments {
            if done == length {
                break;
            }
            let available = u64::from(segment.length);
            if skip >= available {
                skip -= available;
                continue;
            }
            let count = ((available - skip) as usize).min(length - done);
            piece(GuestAddress(segment.address.0 + skip), done..done + count)?;
            done += count;
            skip = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)])
            .unwrap()
    }

    fn buffers(list: &[(u64, u32)]) -> Buffers {
        let mut buffers = Buffers::default();
        for &(address, length) in list {
            buffers.push(Segment {
                address: GuestAddress(address),
                length,
            });
        }
        buffers
    }

    #[test]
    fn copies_across_segments() {
        let memory = memory();
        let list = buffers(&[(0x10, 3), (0x100, 1), (0xffe, 4)]);
        list.write_at(&memory, 1, &[1, 2, 3, 4, 5, 6, 7]).unwrap();
        let mut data = [0; 8];
        list.read_at(&memory, 0, &mut data).unwrap();
        assert_eq!(data, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x100)).unwrap(), 3);
        assert_eq!(list.read_obj::<u16>(&memory, 2).unwrap(), 0x0302);
        list.write_obj(&memory, 6, &0xbeef_u16).unwrap();
        assert_eq!(list.read_obj::<u16>(&memory, 6).unwrap(), 0xbeef);
    }

    #[test]
    fn refuses_what_is_not_there() {
        let memory = memory();
        let list = buffers(&[(0, 4)]);
        let short = |needed| Err(ChainError::Short { needed, present: 4 });
        assert_eq!(list.write_at(&memory, 2, &[0; 3]), short(5));
        assert_eq!(list.read_at(&memory, u64::MAX, &mut [0]), short(u64::MAX));
        assert_eq!(list.clone().advance(5), short(5));
        assert_eq!(list.clone().truncate(5), short(5));
        let outside = buffers(&[(0x1ffe, 4)]);
        let mut iovecs = Vec::new();
        assert_eq!(
            outside.iovecs(&memory, &mut iovecs),
            Err(ChainError::Memory { address: 0x1ffe })
        );
        assert!(iovecs.is_empty());
    }

    #[test]
    fn trims_both_ends() {
        let mut list = buffers(&[(0x10, 16), (0x100, 8), (0x200, 1)]);
        list.truncate(24).unwrap();
        assert_eq!(list, buffers(&[(0x10, 16), (0x100, 8)]));
        list.advance(17).unwrap();
        assert_eq!(list, buffers(&[(0x101, 7)]));
        list.advance(7).unwrap();
        assert!(list.is_empty());
        assert!(list.segments().is_empty());
        list.truncate(0).unwrap();
        list.advance(0).unwrap();
    }

    #[test]
    fn splits_segments_at_region_borders() {
        let memory = memory();
        let mut iovecs = Vec::new();
        buffers(&[(0xff0, 0x20), (4, 4)])
            .iovecs(&memory, &mut iovecs)
            .unwrap();
        let lengths: Vec<usize> = iovecs.iter().map(|iovec| iovec.iov_len).collect();
        assert_eq!(lengths, [0x10, 0x10, 4]);
    }
}
