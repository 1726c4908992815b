//! Other descriptors that end an engine's sleep.
//!
//! They are polled by the ring itself (multishot, edge-triggered), so that a
//! thread sleeps, submits and collects in one system call and need not read
//! the descriptors.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::{cqueue, opcode, squeue, types};

/// Most descriptors one engine watches.
pub(super) const MOST: usize = 8;

/// Marks what is not a request in a completion's user data. Requests are numbered by slot.
const WATCH: u64 = 1 << 63;
/// A cancellation, whose result nobody needs.
const CANCELLATION: u64 = 1 << 62;

/// Which of the watched descriptors were signalled, by position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired(u8);

impl Fired {
    /// Whether the descriptor at `position` was signalled.
    pub fn has(self, position: usize) -> bool {
        position < MOST && self.0 & 1 << position != 0
    }
}

/// A descriptor and whether the kernel polls it at present.
#[derive(Debug, Clone, Copy)]
struct Watch {
    fd: RawFd,
    armed: bool,
}

/// The descriptors an engine watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    slots: [Option<Watch>; MOST],
    /// Signalled and not yet told.
    fired: Fired,
}

impl Watches {
    /// Watches the owner's descriptors, which it keeps open until they are cleared.
    pub fn set(&mut self, fds: &[BorrowedFd<'_>]) {
        for (slot, fd) in self.slots.iter_mut().zip(fds) {
            *slot = Some(Watch::new(*fd));
        }
    }

    /// The next poll to be started, if any. It counts as started.
    pub fn arm_next(&mut self) -> Option<squeue::Entry> {
        let watches = self.slots.iter_mut().enumerate();
        let (position, watch) = watches
            .filter_map(|(position, slot)| Some((position, slot.as_mut()?)))
            .find(|(_, watch)| !watch.armed)?;
        watch.armed = true;
        let poll = opcode::PollAdd::new(types::Fd(watch.fd), libc::POLLIN as u32).multi(true);
        Some(poll.build().user_data(WATCH | position as u64))
    }

    /// Notes a completion; `false` if it is a request's.
    pub fn note(&mut self, entry: &cqueue::Entry) -> bool {
        let data = entry.user_data();
        if data & CANCELLATION != 0 {
            return true;
        }
        if data & WATCH == 0 {
            return false;
        }
        let position = (data & !WATCH) as usize;
        if let Some(Some(watch)) = self.slots.get_mut(position) {
            // The kernel ends a poll by itself when it has no room to tell; it is started again.
            watch.armed = cqueue::more(entry.flags());
            self.fired.0 |= 1 << position;
        }
        true
    }

    /// What was signalled since the last call.
    pub fn take_fired(&mut self) -> Fired {
        std::mem::take(&mut self.fired)
    }

    /// Cancellations of all polls that run.
    ///
    /// Not by `IORING_OP_POLL_REMOVE`, which does nothing to a poll that is
    /// about to tell of a signal.
    pub fn cancellations(&self) -> Vec<squeue::Entry> {
        let cancellation = |position: usize| {
            opcode::AsyncCancel::new(WATCH | position as u64)
                .build()
                .user_data(CANCELLATION)
        };
        let armed = |position: &usize| self.slots[*position].is_some_and(|watch| watch.armed);
        (0..MOST).filter(armed).map(cancellation).collect()
    }

    /// Whether any poll runs.
    pub fn any_armed(&self) -> bool {
        self.slots.iter().flatten().any(|watch| watch.armed)
    }

    /// Forgets the owner's descriptors. No poll runs any more.
    pub fn clear(&mut self) {
        self.slots.fill(None);
        self.fired = Fired::default();
    }
}

impl Watch {
    fn new(fd: BorrowedFd<'_>) -> Self {
        Self {
            fd: fd.as_raw_fd(),
            armed: false,
        }
    }
}
