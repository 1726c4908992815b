//! Devices driven by hand, for the fuzz targets in `tests/fuzz`: everything happens on the thread that
//! holds the device, in an order that is the same for the same input.
//!
//! Devices whose queues have a thread of their own are built without it on a thread that has called
//! [`drive_by_hand`]: what theirs would do since the device was activated or resumed is done when it is paused or deactivated, up to where
//! it would sleep. Whoever rings a doorbell pauses and resumes the device to have it looked at. Devices on the event
//! loop are served by [`EventLoop::turn`](crate::event_loop::EventLoop::turn).

use std::cell::{Cell, RefCell};
use std::sync::mpsc::Sender;

use vmm_sys_util::eventfd::EventFd;

pub use crate::sweep::{Machine, machine};
pub use crate::test_machine::{
    TestConsole, TestLine, TestPage, TestPlatform, TestPower, TestVector, VectorState,
};
use crate::virtio::queue_thread::Serve;

thread_local! {
    static BY_HAND: Cell<bool> = const { Cell::new(false) };
    /// Stops what is being served by hand.
    static STOP: RefCell<Option<EventFd>> = const { RefCell::new(None) };
}

/// From now on, devices built on this thread get no threads.
pub fn drive_by_hand() {
    BY_HAND.set(true);
}

pub(crate) fn by_hand() -> bool {
    BY_HAND.get()
}

/// To be called where a device's thread is about to sleep. One that is driven by hand stops instead.
pub(crate) fn end_turn() {
    STOP.with_borrow(|stop| {
        if let Some(stop) = stop {
            // The counter goes from 0 to a small number.
            let _ = stop.write(1);
        }
    });
}

/// A thread that is none.
pub(crate) struct ByHand<S: Serve> {
    server: S,
    start: Option<S::Start>,
    ends: Sender<S::End>,
}

impl<S: Serve> ByHand<S> {
    pub fn new(server: S, ends: Sender<S::End>) -> Self {
        Self {
            server,
            start: None,
            ends,
        }
    }

    pub fn start(&mut self, start: S::Start) {
        self.start = Some(start);
    }

    /// Does what the thread would do until it sleeps; the result waits for whoever stops it.
    pub fn turn(&mut self, stop: &EventFd) {
        let Some(start) = self.start.take() else {
            return;
        };
        // What is served may start and stop others, whose turns are within its own.
        let outer = STOP.replace(stop.try_clone().ok());
        let end = self.server.serve(start, stop);
        STOP.set(outer);
        // The other end is in the same structure.
        let _ = self.ends.send(end);
    }
}
