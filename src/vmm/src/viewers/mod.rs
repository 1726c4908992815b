//! Those who see the guest's screen and use its keyboard and mouse from afar, by RFB.
//!
//! One thread serves them all. It is started with the machine, before the monitor locks itself down, and sleeps while
//! nobody watches or nobody wants to see anything new. It reads the screen where the guest has it, in guest memory, tile by
//! tile: neither is there a copy of the whole, nor does a picture travel through another process. What a viewer can make it
//! do is charged to its own guest, as this process is.

mod hands;
mod picture;
mod pointer;
mod server;
mod viewer;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use lodge_devices::ramfb::Ramfb;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SockType;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub use self::hands::Hands;
pub use self::pointer::{Pointer, place_on_tablet};
use self::server::Server;
use crate::machine::Prologue;

/// Most viewers at a time.
pub const MAX_VIEWERS: usize = 8;

/// A viewer that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ViewerError {
    /// There are [`MAX_VIEWERS`] already.
    #[error("{MAX_VIEWERS} viewers see the screen already; close one first")]
    Busy,
    /// The descriptor cannot be used.
    #[error("the viewer's socket: {0}")]
    Socket(#[from] io::Error),
}

/// The thread that serves viewers. It ends when this is dropped.
pub struct Viewers {
    arrivals: Option<Sender<Arrival>>,
    wake: Arc<EventFd>,
    seats: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// Somebody who comes to see the screen.
struct Arrival {
    socket: OwnedFd,
    name: String,
    seat: Seat,
}

/// A place among [`MAX_VIEWERS`], free again when dropped.
struct Seat(Arc<AtomicUsize>);

impl Viewers {
    /// Starts the thread, which runs `prologue` first. Each viewer has `hands` of its own.
    ///
    /// # Errors
    /// When the host is out of threads or descriptors.
    pub fn start(screen: Arc<Mutex<Ramfb>>, hands: Hands, prologue: Prologue) -> io::Result<Self> {
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let (arrivals, queue) = channel();
        let server = Server::new(screen, hands, queue, Arc::clone(&wake));
        let thread = std::thread::Builder::new()
            .name("viewers".to_owned())
            .spawn(move || {
                prologue();
                server.run();
            })?;
        Ok(Self {
            arrivals: Some(arrivals),
            wake,
            seats: Arc::default(),
            thread: Some(thread),
        })
    }

    /// Serves a viewer on a connected stream socket until either end closes it. `name` is what the viewer is told
    /// that it sees.
    ///
    /// # Errors
    /// [`ViewerError`]; the socket is closed.
    pub fn attach(&self, socket: OwnedFd, name: &str) -> Result<(), ViewerError> {
        let kind = getsockopt(&socket, SockType).map_err(io::Error::from)?;
        if kind != nix::sys::socket::SockType::Stream {
            return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE).into());
        }
        let arrival = Arrival {
            socket,
            name: name.to_owned(),
            seat: Seat::take(&self.seats).ok_or(ViewerError::Busy)?,
        };
        if let Some(arrivals) = &self.arrivals {
            // The thread lives as long as this does, unless it has panicked.
            let gone = |_| io::Error::other("nobody serves viewers any more");
            arrivals.send(arrival).map_err(gone)?;
        }
        // A full counter wakes just as well.
        let _ = self.wake.write(1);
        Ok(())
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.arrivals = None;
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seat {
    fn take(seats: &Arc<AtomicUsize>) -> Option<Self> {
        let room = |count| (count < MAX_VIEWERS).then_some(count + 1);
        seats
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .ok()?;
        Some(Self(Arc::clone(seats)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
