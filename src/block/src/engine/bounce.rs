//! Aligned buffers between the disk and misaligned guest memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Size of a buffer in bytes: enough that a misaligned request costs little
/// more than its copy.
const SIZE: usize = 64 << 10;

/// No `O_DIRECT` asks for more.
const ALIGNMENT: usize = 4096;

/// Most buffers an engine has, 1 MiB together. Further requests wait for one.
const MOST: usize = 16;

/// A zeroed, aligned buffer.
#[derive(Debug)]
pub(super) struct Buffer {
    start: NonNull<u8>,
}

impl Buffer {
    const LAYOUT: Layout = match Layout::from_size_align(SIZE, ALIGNMENT) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    };

    fn new() -> Self {
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(Self::LAYOUT) };
        match NonNull::new(start) {
            Some(start) => Self { start },
            None => handle_alloc_error(Self::LAYOUT),
        }
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    #[expect(clippy::unused_self, reason = "a length belongs to its buffer")]
    pub fn len(&self) -> usize {
        SIZE
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with the same layout.
        unsafe { dealloc(self.start.as_ptr(), Self::LAYOUT) }
    }
}

// SAFETY: the buffer is owned, like a `Box<[u8]>`.
unsafe impl Send for Buffer {}

/// The buffers of an engine, made when first needed.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Vec<Buffer>,
    made: usize,
    zeroes: Option<Buffer>,
}

impl Pool {
    pub fn has_room(&self) -> bool {
        !self.idle.is_empty() || self.made < MOST
    }

    pub fn take(&mut self) -> Option<Buffer> {
        if let Some(buffer) = self.idle.pop() {
            return Some(buffer);
        }
        if self.made == MOST {
            return None;
        }
        self.made += 1;
        Some(Buffer::new())
    }

    pub fn give_back(&mut self, buffer: Buffer) {
        self.idle.push(buffer);
    }

    /// A buffer of zeroes, shared by all that write zeroes.
    pub fn zeroes(&mut self) -> &Buffer {
        self.zeroes.get_or_insert_with(Buffer::new)
    }
}
