//! The thread's loop: who comes, who says something, who may see something new.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lodge_devices::ramfb::Ramfb;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

use super::picture::View;
use super::viewer::{Gone, Viewer};
use super::{Arrival, Hands};

pub struct Server {
    screen: Arc<Mutex<Ramfb>>,
    hands: Hands,
    arrivals: Receiver<Arrival>,
    wake: Arc<EventFd>,
    list: Vec<Viewer>,
    view: View,
}

impl Server {
    pub fn new(
        screen: Arc<Mutex<Ramfb>>,
        hands: Hands,
        arrivals: Receiver<Arrival>,
        wake: Arc<EventFd>,
    ) -> Self {
        Self {
            screen,
            hands,
            arrivals,
            wake,
            list: Vec::new(),
            view: View::dark(),
        }
    }

    /// Serves until nobody can come any more.
    pub fn run(mut self) {
        loop {
            let ready = self.wait();
            self.hear(&ready);
            self.show();
            if self.admit().is_err() {
                return;
            }
        }
    }

    /// Sleeps until there is something to do; tells who has said something.
    fn wait(&self) -> Vec<bool> {
        let wake = borrow(&self.wake);
        let viewers = self.list.iter();
        let viewers = viewers.map(|viewer| PollFd::new(viewer.as_fd(), viewer.interest()));
        let mut fds: Vec<PollFd> = viewers.collect();
        fds.push(PollFd::new(wake, PollFlags::POLLIN));
        let due = self.list.iter().filter_map(Viewer::due).min();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up, so that it is time then.
            let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            PollTimeout::from(millis)
        });
        // Interrupted or not: everything that follows looks for itself.
        let _ = poll(&mut fds, timeout);
        let said = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        let ready = fds
            .iter()
            .map(|fd| fd.revents().is_some_and(|events| events.intersects(said)));
        ready.take(self.list.len()).collect()
    }

    /// Lets in whoever waits.
    ///
    /// # Errors
    /// When nobody will come any more.
    fn admit(&mut self) -> Result<(), TryRecvError> {
        // Before looking, so that whoever comes meanwhile wakes again.
        let _ = self.wake.read();
        loop {
            match self.arrivals.try_recv() {
                Ok(arrival) => self.list.push(Viewer::new(arrival, self.hands.clone())),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(gone @ TryRecvError::Disconnected) => return Err(gone),
            }
        }
    }

    fn hear(&mut self, ready: &[bool]) {
        // From the last, so that the places of those before stay.
        for index in (0..ready.len()).rev().filter(|&index| ready[index]) {
            match self.list[index].hear() {
                Ok(false) => {}
                Ok(true) => {
                    // RFC 6143, 7.3.1: the others have to go.
                    let viewer = self.list.swap_remove(index);
                    self.list.clear();
                    self.list.push(viewer);
                    return;
                }
                Err(Gone) => drop(self.list.swap_remove(index)),
            }
        }
    }

    fn show(&mut self) {
        let now = Instant::now();
        if self.list.iter().any(|viewer| viewer.looks(now)) {
            let scanout = self.screen.lock().unwrap().scanout();
            self.view = self.view.next(scanout);
        }
        let view = &self.view;
        self.list
            .retain_mut(|viewer| viewer.show(view, now).is_ok());
    }
}

#[allow(unsafe_code)]
fn borrow(event: &EventFd) -> std::os::fd::BorrowedFd<'_> {
    use std::os::fd::{AsRawFd, BorrowedFd};
    // SAFETY: the descriptor is open for as long as the event is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
