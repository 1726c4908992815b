//! Takes descriptor chains off a queue, trusting nothing the driver wrote.
//!
//! `virtio-queue` reads the rings; the walk over descriptors is our own, because
//! its iterator ends silently at a malformed descriptor, where a device must
//! know (virtio 1.2, 2.7.5: the device then needs a reset). Each descriptor is
//! read from guest memory once.

#[cfg(test)]
mod tests;

use std::num::Wrapping;
use std::sync::atomic::Ordering;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::buffers::{Buffers, Segment};
use crate::GuestMemory;

const DESCRIPTOR_BYTES: u32 = size_of::<Descriptor>() as u32;

/// A ring or chain that breaks the rules. The device reports it with
/// [`DeviceEvents::needs_reset`](super::DeviceEvents::needs_reset) and leaves the queue alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The available or used ring is unusable, e.g. its index jumped by more than its size.
    #[error("ring: {0}")]
    Ring(String),
    /// A descriptor index is not below the table's length.
    #[error("descriptor index {index} in a table of {entries}")]
    Index {
        /// The index used.
        index: u16,
        /// Descriptors in the table.
        entries: u16,
    },
    /// More descriptors are linked than the table holds.
    #[error("descriptor chain loops")]
    Loop,
    /// A device-readable descriptor follows a device-writable one.
    #[error("readable descriptor after a writable one")]
    Order,
    /// An indirect table is nested, linked onwards, of a bad length, or not negotiated.
    #[error("bad indirect table: {0}")]
    Indirect(&'static str),
    /// More segments than this device takes.
    #[error("more than {limit} buffers in one chain")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// More bytes than this device takes.
    #[error("more than {limit} bytes in one chain")]
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// A buffer or table is not in guest memory.
    #[error("address {address:#x} is outside guest memory")]
    Memory {
        /// First address of the buffer.
        address: u64,
    },
    /// The chain has fewer bytes than the request needs.
    #[error("{needed} bytes needed, {present} given")]
    Short {
        /// Bytes the device wanted.
        needed: u64,
        /// Bytes in the chain.
        present: u64,
    },
    /// The driver offered a chain again that the device has not returned yet.
    #[error("descriptor {0} offered while still in flight")]
    InFlight(u16),
}

impl From<virtio_queue::Error> for ChainError {
    fn from(error: virtio_queue::Error) -> Self {
        Self::Ring(error.to_string())
    }
}

/// What a device accepts in one chain.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Buffers, readable and writable together.
    pub segments: usize,
    /// Bytes, readable and writable together.
    pub bytes: u64,
}

impl Default for Limits {
    /// As many buffers as the kernel takes in one vectored call (`UIO_MAXIOV`),
    /// and 4 GiB (virtio 1.2, 2.7.5.2).
    fn default() -> Self {
        Self {
            segments: 1024,
            bytes: u64::from(u32::MAX),
        }
    }
}

/// One request: a chain taken off a queue. Reuse it to save allocations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The chain's name towards the driver, for [`finish`].
    pub head: u16,
    /// What the driver gives the device to read.
    pub readable: Buffers,
    /// Where the driver wants the answer.
    pub writable: Buffers,
}

/// Takes the next available chain off `queue` into `chain`; `false` when there is none.
///
/// # Errors
/// [`ChainError`] when the driver broke the rules; the queue is then not to be used any more.
pub fn pop(
    queue: &mut Queue,
    memory: &GuestMemory,
    limits: Limits,
    chain: &mut Chain,
) -> Result<bool, ChainError> {
    let Some(head) = queue.iter(memory)?.next().map(|next| next.head_index()) else {
        return Ok(false);
    };
    read(queue, memory, limits, head, chain)?;
    Ok(true)
}

/// Reads the chain that begins at `head` into `chain`: one that was taken off `queue` before, and is to be served again.
///
/// # Errors
/// As [`pop`].
pub fn read(
    queue: &Queue,
    memory: &GuestMemory,
    limits: Limits,
    head: u16,
    chain: &mut Chain,
) -> Result<(), ChainError> {
    chain.head = head;
    chain.readable.clear();
    chain.writable.clear();
    Walk {
        memory,
        limits,
        chain,
    }
    .queue_table(GuestAddress(queue.desc_table()), queue.size())
}

/// How many chains the driver has made available and the device has not taken.
///
/// # Errors
/// [`ChainError::Ring`] when that is more than the ring holds.
pub fn available(queue: &Queue, memory: &GuestMemory) -> Result<u16, ChainError> {
    let index = queue.avail_idx(memory, Ordering::Acquire)?;
    let count = (index - Wrapping(queue.next_avail())).0;
    if count > queue.size() {
        return Err(ChainError::Ring(format!(
            "{count} chains available in a ring of {}",
            queue.size()
        )));
    }
    Ok(count)
}

/// Returns the chain `head` to the driver with `written` bytes in its writable
/// buffers; tells whether the driver wants an interrupt for it.
///
/// A device that returns several chains at once calls `Queue::add_used` for each and
/// `Queue::needs_notification` once.
///
/// # Errors
/// [`ChainError::Ring`] when the used ring cannot be written.
pub fn finish(
    queue: &mut Queue,
    memory: &GuestMemory,
    head: u16,
    written: u32,
) -> Result<bool, ChainError> {
    queue.add_used(memory, head, written)?;
    Ok(queue.needs_notification(memory)?)
}

struct Walk<'a> {
    memory: &'a GuestMemory,
    limits: Limits,
    chain: &'a mut Chain,
}

impl Walk<'_> {
    fn queue_table(&mut self, table: GuestAddress, entries: u16) -> Result<(), ChainError> {
        let mut index = self.chain.head;
        for _ in 0..entries {
            let descriptor = self.read(table, index, entries)?;
            if descriptor.refers_to_indirect_table() {
                if descriptor.has_next() {
                    return Err(ChainError::Indirect("linked onwards"));
                }
                return self.indirect_table(descriptor);
            }
            self.add(descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(ChainError::Loop)
    }

    fn indirect_table(&mut self, reference: Descriptor) -> Result<(), ChainError> {
        let length = reference.len();
        if length == 0 || !length.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(ChainError::Indirect("length is not a multiple of 16"));
        }
        let entries = u16::try_from(length / DESCRIPTOR_BYTES)
            .map_err(|_| ChainError::Indirect("more than 65535 entries"))?;
        let mut index = 0;
        for _ in 0..entries {
            let descriptor = self.read(reference.addr(), index, entries)?;
            if descriptor.refers_to_indirect_table() {
                return Err(ChainError::Indirect("nested"));
            }
            self.add(descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(ChainError::Loop)
    }

    fn read(
        &self,
        table: GuestAddress,
        index: u16,
        entries: u16,
    ) -> Result<Descriptor, ChainError> {
        if index >= entries {
            return Err(ChainError::Index { index, entries });
        }
        let outside = ChainError::Memory { address: table.0 };
        let offset = u64::from(index) * u64::from(DESCRIPTOR_BYTES);
        let Some(address) = table.0.checked_add(offset) else {
            return Err(outside);
        };
        self.memory
            .read_obj(GuestAddress(address))
            .map_err(|_| outside)
    }

    fn add(&mut self, descriptor: Descriptor) -> Result<(), ChainError> {
        let (address, length) = (descriptor.addr(), descriptor.len());
        let Chain {
            readable, writable, ..
        } = &mut *self.chain;
        if !descriptor.is_write_only() && !writable.is_empty() {
            return Err(ChainError::Order);
        }
        // An empty buffer is pointless but harmless.
        if length == 0 {
            return Ok(());
        }
        if readable.segments().len() + writable.segments().len() >= self.limits.segments {
            return Err(ChainError::TooMany {
                limit: self.limits.segments,
            });
        }
        // At most 65535 lengths of 32 bits: no overflow.
        if readable.len() + writable.len() + u64::from(length) > self.limits.bytes {
            return Err(ChainError::TooLong {
                limit: self.limits.bytes,
            });
        }
        // Adding the length here catches wrap-around before the memory map is asked.
        let inside = address.0.checked_add(u64::from(length)).is_some()
            && self
                .memory
                .check_range(address, length as usize, Permissions::ReadWrite);
        if !inside {
            return Err(ChainError::Memory { address: address.0 });
        }
        let list = if descriptor.is_write_only() {
            writable
        } else {
            readable
        };
        list.push(Segment { address, length });
        Ok(())
    }
}

/// The chains a device holds: taken off the queue, not yet returned.
///
/// A driver that offers a chain again while it is in flight would make two
/// requests share buffers and be completed twice.
#[derive(Debug, Default)]
pub struct InFlight {
    bits: Vec<u64>,
    count: usize,
}

impl InFlight {
    /// Notes that `head` was taken.
    ///
    /// # Errors
    /// [`ChainError::InFlight`] when it already was.
    pub fn take(&mut self, head: u16) -> Result<(), ChainError> {
        let (word, bit) = Self::place(head);
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            return Err(ChainError::InFlight(head));
        }
        self.bits[word] |= bit;
        self.count += 1;
        Ok(())
    }

    /// Notes that `head` was returned; tells whether it had been taken.
    pub fn give_back(&mut self, head: u16) -> bool {
        let (word, bit) = Self::place(head);
        let held = self.bits.get(word).is_some_and(|bits| bits & bit != 0);
        if held {
            self.bits[word] &= !bit;
            self.count -= 1;
        }
        held
    }

    /// Chains held.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn place(head: u16) -> (usize, u64) {
        (usize::from(head / 64), 1 << (head % 64))
    }
}
