//! The thread that moves packets.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::card::Card;
use super::frame::Frame;
use super::transmit::Step;
use crate::tap::Tap;
use crate::virtio::queue_thread::Serve;
use crate::virtio::wait::{borrow, wait_for_fds};

/// Packets moved in one direction before the other, and a stop, are looked at.
const BUDGET: usize = 64;

/// The thread's own.
pub(super) struct Worker {
    card: Arc<Card>,
    tap: Tap,
    /// The packet taken from the tap and not yet delivered.
    frame: Frame,
    /// It waits for the driver.
    blocked: bool,
    outgoing: Vec<u8>,
}

impl Worker {
    pub fn new(card: Arc<Card>, tap: Tap) -> Self {
        Self {
            card,
            tap,
            frame: Frame::new(),
            blocked: false,
            outgoing: Vec::new(),
        }
    }

    /// Sends some packets; tells whether there may be more right now.
    fn send(&mut self) -> bool {
        for _ in 0..BUDGET {
            match self.card.next_packet(&mut self.outgoing) {
                Step::Idle => return false,
                Step::More => {}
                Step::Packet => {
                    if let Err(error) = self.tap.send_packet(&self.outgoing) {
                        tracing::trace!(%error, length = self.outgoing.len(), "packet dropped");
                    }
                }
            }
        }
        true
    }

    /// Delivers some packets; tells whether there may be more right now.
    fn receive(&mut self) -> bool {
        for _ in 0..BUDGET {
            if self.frame.is_empty() && !self.frame.take(&self.tap) {
                return false;
            }
            if !self.card.deliver(&mut self.frame) {
                self.blocked = true;
                return false;
            }
            self.frame.clear();
        }
        true
    }
}

impl Serve for Worker {
    type Start = ();
    type End = ();

    fn serve(&mut self, (): (), stop: &EventFd) {
        let card = Arc::clone(&self.card);
        // There may be packets from before a pause, whose kick nobody will repeat.
        self.blocked = false;
        let (mut receive_more, mut send_more) = (true, true);
        loop {
            // Nobody reads packets while there is no room for one: then the tap's own queue
            // fills up and drops, as a wire does.
            let tap = if self.blocked {
                borrow(stop)
            } else {
                self.tap.as_fd()
            };
            let fds = [borrow(stop), borrow(card.kick()), tap];
            let [stopped, kicked, arrived] = wait_for_fds(fds, !receive_more && !send_more);
            if stopped {
                return;
            }
            if kicked {
                // It was readable, and nobody else reads it.
                let _ = card.kick().read();
                self.blocked = false;
            }
            if send_more || kicked {
                send_more = self.send();
            }
            if receive_more || kicked || arrived {
                receive_more = self.receive();
            }
        }
    }
}
