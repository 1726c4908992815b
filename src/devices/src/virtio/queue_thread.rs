//! A thread that serves a device's queues while the driver uses them.
//!
//! It is started with the device, before the monitor locks itself down, and
//! parked between activations: a driver that resets its device in a loop does
//! not make the monitor create threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Runs first on every device thread, e.g. to install a seccomp filter.
pub type Prologue = Arc<dyn Fn() + Send + Sync>;

/// What a queue thread does.
pub(crate) trait Serve: Send + 'static {
    /// Queues and whatever else an activation brings.
    type Start: Send;
    /// What the device wants back.
    type End: Send;

    /// Serves until `stop` becomes readable; touches guest memory no more after returning.
    fn serve(&mut self, start: Self::Start, stop: &EventFd) -> Self::End;
}

/// The thread as its device sees it.
pub(crate) struct QueueThread<S: Serve> {
    inbox: Option<Sender<S::Start>>,
    outbox: Receiver<S::End>,
    stop: Arc<EventFd>,
    active: bool,
    thread: Option<JoinHandle<()>>,
    #[cfg(feature = "fuzzing")]
    by_hand: Option<Box<crate::fuzzing::ByHand<S>>>,
}

impl<S: Serve> QueueThread<S> {
    /// Starts the thread, parked.
    pub fn spawn(name: &str, prologue: Prologue, mut server: S) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let (inbox, starts) = channel();
        let (ends, outbox) = channel();
        #[cfg(feature = "fuzzing")]
        if crate::fuzzing::by_hand() {
            return Ok(Self {
                inbox: None,
                outbox,
                stop,
                active: false,
                thread: None,
                by_hand: Some(Box::new(crate::fuzzing::ByHand::new(server, ends))),
            });
        }
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                prologue();
                for start in starts {
                    let end = catch_unwind(AssertUnwindSafe(|| server.serve(start, &stopped)));
                    // A guest whose device is silently gone hangs; a dead monitor is reported.
                    let Ok(end) = end else { std::process::abort() };
                    if ends.send(end).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            inbox: Some(inbox),
            outbox,
            stop,
            active: false,
            thread: Some(thread),
            #[cfg(feature = "fuzzing")]
            by_hand: None,
        })
    }

    /// Lets it serve; [`QueueThread::stop`] comes before the next start.
    pub fn start(&mut self, start: S::Start) {
        #[cfg(feature = "fuzzing")]
        if let Some(by_hand) = &mut self.by_hand {
            by_hand.start(start);
            self.active = true;
            return;
        }
        if let Some(inbox) = &self.inbox {
            self.active = inbox.send(start).is_ok();
        }
    }

    /// Parks it and takes the result; `None` when it was parked.
    pub fn stop(&mut self) -> Option<S::End> {
        if !self.active {
            return None;
        }
        self.active = false;
        #[cfg(feature = "fuzzing")]
        if let Some(by_hand) = &mut self.by_hand {
            by_hand.turn(&self.stop);
        }
        // Cannot fail: the counter goes from 0 to 1.
        let _ = self.stop.write(1);
        let end = self.outbox.recv().ok();
        let _ = self.stop.read();
        end
    }
}

impl<S: Serve> Drop for QueueThread<S> {
    fn drop(&mut self) {
        self.stop();
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
