//! The host side of a text console: scroll-back, viewers, and what they type.
//!
//! A device writes output into a ring that always takes it; the event loop copies from the ring to
//! every viewer's socket, at the viewer's own speed and a few hundred times a second at most. A viewer that falls behind by
//! more than the ring loses the oldest bytes and is told how many. What viewers type is
//! queued for the device, which takes it when its guest does; while the queue is full,
//! viewers are not read from, so their own sockets push back on them.
//!
//! Lock order: a device's lock, then the console's. The event loop calls the device
//! with neither held.

mod ring;
#[cfg(test)]
mod tests;
mod viewer;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SockType;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::ring::Ring;
use self::viewer::Viewers;
use crate::event_loop::{LoopHandle, Registration};

/// Bytes of scroll-back kept.
pub const SCROLLBACK: usize = 256 << 10;
/// Most viewers at a time.
pub const MAX_VIEWERS: usize = 16;
/// Most bytes typed and not yet taken by the guest.
pub const MAX_INPUT: usize = 4 << 10;

/// Where a device's text goes.
pub trait ConsoleSink: Send + Sync {
    /// Takes all of `data`, at once.
    fn write(&self, data: &[u8]);
}

/// Where a device's input comes from.
pub trait ConsoleSource: Send + Sync {
    /// Takes up to `data.len()` bytes that were typed; 0 when there are none.
    fn read(&self, data: &mut [u8]) -> usize;

    /// How many there are to take.
    fn waiting(&self) -> usize;
}

/// A viewer that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There are [`MAX_VIEWERS`] already.
    #[error("{MAX_VIEWERS} viewers are attached already; detach one first")]
    Busy,
    /// The descriptor cannot be used.
    #[error("console socket: {0}")]
    Socket(#[from] io::Error),
}

type InputHook = Box<dyn Fn() + Send + Sync>;

/// One text console.
pub struct Console {
    shared: Arc<Inner>,
    _registration: Registration,
}

struct Inner {
    ring: Mutex<Ring>,
    input: Mutex<VecDeque<u8>>,
    /// Viewers handed over and not yet seen by the event loop, with the position of the
    /// first byte they are to see.
    arriving: Mutex<Vec<(OwnedFd, u64)>>,
    viewers: AtomicUsize,
    /// Wakes the event loop, once until it has looked.
    wake: EventFd,
    awake: AtomicBool,
    input_hook: OnceLock<InputHook>,
}

impl Console {
    /// A console without viewers, served by `events`.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(events: &LoopHandle) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Inner {
            ring: Mutex::new(Ring::new(SCROLLBACK)),
            input: Mutex::default(),
            arriving: Mutex::default(),
            viewers: AtomicUsize::new(0),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            awake: AtomicBool::new(false),
            input_hook: OnceLock::new(),
        });
        let registration = events.register(Box::new(Viewers::new(Arc::clone(&shared))?));
        Ok(Arc::new(Self {
            shared,
            _registration: registration,
        }))
    }

    /// Sets what the event loop calls, with no lock held, when something was typed. Only the first
    /// call counts.
    pub fn on_input(&self, hook: impl Fn() + Send + Sync + 'static) {
        if self.shared.input_hook.set(Box::new(hook)).is_err() {
            tracing::error!("a console serves one device only");
        }
    }

    /// Attaches a connected stream socket: first up to `scrollback` bytes of history
    /// (capped at [`SCROLLBACK`]), then live output. What is read from it becomes input.
    /// Its end detaches it.
    ///
    /// # Errors
    /// [`AttachError`]; the socket is closed.
    pub fn attach(&self, socket: OwnedFd, scrollback: usize) -> Result<(), AttachError> {
        make_nonblocking(&socket)?;
        let viewers = &self.shared.viewers;
        let room = |count| (count < MAX_VIEWERS).then_some(count + 1);
        if viewers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .is_err()
        {
            return Err(AttachError::Busy);
        }
        let ring = self.shared.ring.lock().unwrap();
        let position = ring
            .end()
            .saturating_sub(scrollback as u64)
            .max(ring.start());
        drop(ring);
        let arriving = &self.shared.arriving;
        arriving.lock().unwrap().push((socket, position));
        self.shared.wake();
        Ok(())
    }

    /// Number of viewers attached.
    pub fn viewers(&self) -> usize {
        self.shared.viewers.load(Ordering::Acquire)
    }

    /// The last bytes written, at most `limit`.
    pub fn tail(&self, limit: usize) -> Vec<u8> {
        let ring = self.shared.ring.lock().unwrap();
        let from = ring.end().saturating_sub(limit as u64).max(ring.start());
        let mut data = Vec::new();
        let (first, second) = ring.slices(from);
        data.extend_from_slice(first);
        data.extend_from_slice(second);
        data
    }
}

/// Also finds out whether it is a stream socket at all.
fn make_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    if getsockopt(socket, SockType)? != nix::sys::socket::SockType::Stream {
        return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE));
    }
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Inner {
    fn wake(&self) {
        if !self.awake.swap(true, Ordering::SeqCst) {
            // A full counter wakes just as well.
            let _ = self.wake.write(1);
        }
    }
}

impl ConsoleSink for Console {
    fn write(&self, data: &[u8]) {
        self.shared.ring.lock().unwrap().push(data);
        if self.viewers() > 0 {
            self.shared.wake();
        }
    }
}

impl ConsoleSource for Console {
    fn read(&self, data: &mut [u8]) -> usize {
        let mut input = self.shared.input.lock().unwrap();
        let was_full = input.len() >= MAX_INPUT;
        let count = data.len().min(input.len());
        for (byte, typed) in data.iter_mut().zip(input.drain(..count)) {
            *byte = typed;
        }
        drop(input);
        if was_full && count > 0 {
            // Viewers may be read from again.
            self.shared.wake();
        }
        count
    }

    fn waiting(&self) -> usize {
        self.shared.input.lock().unwrap().len()
    }
}
