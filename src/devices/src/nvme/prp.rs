//! Where the data of a command is: physical region pages (NVM Express 1.4, 4.3).

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::command::Status;
use super::{PAGE, PAGE_BYTES};
use crate::GuestMemory;
use crate::virtio::{Buffers, Segment};

const ENTRY_BYTES: u64 = 8;

/// The memory of a command that moves `length` bytes, given its two entries.
///
/// # Errors
/// [`Status::INVALID_PRP_OFFSET`] where an entry's offset must be none or a multiple of more, and
/// [`Status::DATA_TRANSFER_ERROR`] for an address that is not guest memory.
pub(super) fn buffers(
    memory: &GuestMemory,
    [first, second]: [u64; 2],
    length: u64,
) -> Result<Buffers, Status> {
    let mut data = Collector {
        memory,
        buffers: Buffers::default(),
        run: (0, 0),
        left: length,
    };
    expect_aligned(first, 4)?;
    data.take_page(first)?;
    match data.left {
        0 => {}
        1..=PAGE => {
            expect_aligned(second, PAGE)?;
            data.take_page(second)?;
        }
        _ => {
            expect_aligned(second, ENTRY_BYTES)?;
            data.take_list(second)?;
        }
    }
    data.finish()
}

fn expect_aligned(address: u64, alignment: u64) -> Result<(), Status> {
    if address.is_multiple_of(alignment) {
        Ok(())
    } else {
        Err(Status::INVALID_PRP_OFFSET)
    }
}

/// Gathers pages, those that follow each other in one piece.
struct Collector<'a> {
    memory: &'a GuestMemory,
    buffers: Buffers,
    /// Address and length of the piece that may still grow.
    run: (u64, u64),
    /// Bytes still to be found.
    left: u64,
}

impl Collector<'_> {
    /// Takes as much as is needed from `address` to the end of its page.
    fn take_page(&mut self, address: u64) -> Result<(), Status> {
        let count = self.left.min(PAGE - address % PAGE);
        self.left -= count;
        let (start, length) = self.run;
        if length != 0 && start.checked_add(length) == Some(address) {
            self.run.1 += count;
            return Ok(());
        }
        self.push()?;
        self.run = (address, count);
        Ok(())
    }

    /// Takes the pages of a list and of those it goes on in.
    ///
    /// It ends: a list that goes on begins a page and has hundreds of entries before the next link.
    fn take_list(&mut self, mut list: u64) -> Result<(), Status> {
        let mut bytes = [0; PAGE_BYTES];
        loop {
            let room = (PAGE - list % PAGE) / ENTRY_BYTES;
            let needed = self.left.div_ceil(PAGE);
            // At most what is left of a page.
            let count = needed.min(room);
            let entries = &mut bytes[..(count * ENTRY_BYTES) as usize];
            self.memory
                .read_slice(entries, GuestAddress(list))
                .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            let mut entries = entries
                .as_chunks()
                .0
                .iter()
                .copied()
                .map(u64::from_le_bytes);
            // The last entry of a page that is not enough is where the list goes on.
            let link = if needed > room {
                entries.next_back()
            } else {
                None
            };
            for entry in entries {
                expect_aligned(entry, PAGE)?;
                self.take_page(entry)?;
            }
            let Some(next) = link else { return Ok(()) };
            expect_aligned(next, PAGE)?;
            list = next;
        }
    }

    fn push(&mut self) -> Result<(), Status> {
        let (start, length) = std::mem::take(&mut self.run);
        if length == 0 {
            return Ok(());
        }
        let address = GuestAddress(start);
        let inside = start.checked_add(length).is_some()
            && self
                .memory
                .check_range(address, length as usize, Permissions::ReadWrite);
        if !inside {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
        // At most the largest transfer.
        let length = length as u32;
        self.buffers.push(Segment { address, length });
        Ok(())
    }

    fn finish(mut self) -> Result<Buffers, Status> {
        self.push()?;
        Ok(self.buffers)
    }
}
