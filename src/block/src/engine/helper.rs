//! Discards of block devices, which only a blocking call can do.
//!
//! Punching a hole promises zeroes, and the kernel refuses it on devices that
//! only discard. Such devices are rare enough for a thread that starts when first needed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::raw::RawDisk;

struct Request {
    index: u16,
    offset: u64,
    length: u64,
}

/// The thread, and the ways to and from it. Bounded by the engine's depth.
#[derive(Debug)]
pub(super) struct Helper {
    requests: Option<Sender<Request>>,
    results: Receiver<(u16, i32)>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}+{}", self.offset, self.length)
    }
}

impl Helper {
    pub fn start(disk: Arc<RawDisk>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let wake = Arc::clone(&event);
        let (requests, inbox) = channel::<Request>();
        let (outbox, results) = channel();
        let thread = std::thread::Builder::new()
            .name("discard".to_owned())
            .spawn(move || {
                for request in inbox {
                    let result = match disk.discard_device(request.offset, request.length) {
                        Ok(()) => 0,
                        Err(errno) => -(errno as i32),
                    };
                    if outbox.send((request.index, result)).is_err() {
                        return;
                    }
                    // Fails only when the counter is full, and then it is signalled anyway.
                    let _ = wake.write(1);
                }
            })?;
        Ok(Self {
            requests: Some(requests),
            results,
            wake: event,
            thread: Some(thread),
        })
    }

    /// Signalled after each result.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub fn ask(&self, index: u16, offset: u64, length: u64) {
        if let Some(requests) = &self.requests {
            let request = Request {
                index,
                offset,
                length,
            };
            // The thread ends only after the sender is dropped.
            let _ = requests.send(request);
        }
    }

    /// The next result: operation and zero or a negated error number.
    pub fn next(&mut self) -> Option<(u16, i32)> {
        self.results.try_recv().ok()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
