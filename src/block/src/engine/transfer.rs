//! The part of a read or write that is still to be done.

use super::bounce::Buffer;
use crate::raw::Alignment;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the disk to memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// What is left of a read or write.
#[derive(Debug)]
pub(super) struct Transfer {
    pub direction: Direction,
    offset: u64,
    buffers: Vec<libc::iovec>,
    /// Buffers before this one are done.
    first: usize,
    left: u64,
    /// The kernel refused the buffers as they are.
    pub refused: bool,
    /// Carries the current step, when the buffers cannot.
    pub bounce: Option<Buffer>,
}

impl Transfer {
    pub fn new(direction: Direction, offset: u64, buffers: &[libc::iovec]) -> Self {
        let length = |buffer: &libc::iovec| buffer.iov_len as u64;
        Self {
            direction,
            offset,
            buffers: buffers.to_vec(),
            first: 0,
            // Lengths of mapped memory: their sum cannot wrap, unless the caller broke its promise.
            left: buffers.iter().map(length).fold(0, u64::saturating_add),
            refused: false,
            bounce: None,
        }
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    /// The buffers still to be filled or written, as one vectored call takes them.
    pub fn buffers(&self) -> &[libc::iovec] {
        let rest = &self.buffers[self.first..];
        &rest[..rest.len().min(libc::UIO_MAXIOV as usize)]
    }

    /// Whether the kernel takes the buffers as they are.
    pub fn aligned(&self, alignment: Option<Alignment>) -> bool {
        let Some(alignment) = alignment else {
            return true;
        };
        let fits = |buffer: &libc::iovec| {
            (buffer.iov_base as usize).is_multiple_of(alignment.address as usize)
                && buffer.iov_len.is_multiple_of(alignment.length as usize)
        };
        !self.refused && self.buffers[self.first..].iter().all(fits)
    }

    /// Notes that the first `count` bytes are done.
    pub fn advance(&mut self, count: u64) {
        let mut count = count.min(self.left);
        self.left -= count;
        self.offset += count;
        while let Some(buffer) = self.buffers.get_mut(self.first) {
            if count < buffer.iov_len as u64 {
                let count = count as usize;
                buffer.iov_base = buffer.iov_base.wrapping_byte_add(count);
                buffer.iov_len -= count;
                return;
            }
            count -= buffer.iov_len as u64;
            self.first += 1;
        }
    }

    /// Copies what comes next of a write into the bounce buffer; returns how much.
    pub fn fill_bounce(&mut self, bounce: &mut Buffer) -> usize {
        self.with_bounce(bounce, usize::MAX, |memory, bounce, count| {
            // SAFETY: `memory` is valid for reads by the contract of `Engine::write`, `bounce` is
            // ours, and both have `count` bytes.
            unsafe { std::ptr::copy_nonoverlapping(memory.cast_const(), bounce, count) }
        })
    }

    /// Copies the first `length` bytes of the bounce buffer to where a read wants them.
    pub fn empty_bounce(&mut self, bounce: &mut Buffer, length: usize) {
        self.with_bounce(bounce, length, |memory, bounce, count| {
            // SAFETY: `memory` is valid for writes by the contract of `Engine::read`, `bounce` is
            // ours, and both have `count` bytes.
            unsafe { std::ptr::copy_nonoverlapping(bounce.cast_const(), memory, count) }
        });
    }

    /// How many bytes one step through a bounce buffer carries.
    pub fn bounce_length(&self, bounce: &Buffer) -> usize {
        (bounce.len() as u64).min(self.left) as usize
    }

    /// Pairs the buffers with the bounce buffer, piece by piece.
    fn with_bounce(
        &self,
        bounce: &mut Buffer,
        limit: usize,
        mut copy: impl FnMut(*mut u8, *mut u8, usize),
    ) -> usize {
        let length = self.bounce_length(bounce).min(limit);
        let mut done = 0;
        for buffer in &self.buffers[self.first..] {
            if done == length {
                break;
            }
            let count = buffer.iov_len.min(length - done);
            copy(
                buffer.iov_base.cast(),
                bounce.as_mut_ptr().wrapping_add(done),
                count,
            );
            done += count;
        }
        done
    }
}
