//! Sleeping until one of a few descriptors is readable.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use vmm_sys_util::eventfd::EventFd;

/// Sleeps until `event` is readable, and leaves it so.
pub(crate) fn wait_for(event: &EventFd) {
    wait_for_fds([borrow(event)], true);
}

/// Tells which descriptors are readable, sleeping until one is if `sleep`.
/// Errors and hang-ups count as readable.
pub(crate) fn wait_for_fds<const N: usize>(fds: [BorrowedFd<'_>; N], sleep: bool) -> [bool; N] {
    #[cfg(feature = "fuzzing")]
    if sleep && wait_for_fds(fds, false) == [false; N] {
        crate::fuzzing::end_turn();
    }
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let timeout = if sleep {
        PollTimeout::NONE
    } else {
        PollTimeout::ZERO
    };
    loop {
        match nix::poll::poll(&mut polled, timeout) {
            // A completion of io_uring interrupts sleeping threads, too.
            Err(Errno::EINTR) => {}
            // Nothing else can go wrong with a handful of open descriptors.
            _ => return polled.map(|fd| fd.any().unwrap_or(false)),
        }
    }
}

mod fd {
    #![allow(unsafe_code)]

    use super::{AsRawFd, BorrowedFd, EventFd};

    /// The descriptor of an event.
    pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the event is borrowed.
        unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
    }
}

pub(crate) use fd::borrow;
