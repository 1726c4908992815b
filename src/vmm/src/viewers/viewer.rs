//! One viewer's socket and session.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use lodge_rfb::{Input, Session};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, send};

use super::picture::View;
use super::{Arrival, Hands, Seat};

/// Between two looks at the screen at least: thirty times a second is what people see as motion.
const FRAME: Duration = Duration::from_millis(33);
/// Between two looks at a screen on which nothing happens.
const STILL: Duration = Duration::from_millis(250);

/// Most bytes read, and sent, before other viewers have their turn.
const PIECE: usize = 16 << 10;
const BATCH: usize = 1 << 20;

/// A viewer.
pub struct Viewer {
    socket: OwnedFd,
    session: Session<View>,
    hands: Hands,
    /// Waits for its socket, or for its turn.
    unsent: bool,
    /// When it may look again, and how long it waits if there is nothing new then.
    look_at: Instant,
    pause: Duration,
    _seat: Seat,
}

/// The viewer has left, or must.
pub struct Gone;

impl Viewer {
    pub fn new(arrival: Arrival, hands: Hands) -> Self {
        Self {
            socket: arrival.socket,
            session: Session::new(&arrival.name),
            hands,
            unsent: true,
            look_at: Instant::now(),
            pause: FRAME,
            _seat: arrival.seat,
        }
    }

    /// What to wait for. A viewer is always listened to: whatever it says is acted on at once.
    pub fn interest(&self) -> PollFlags {
        match self.unsent {
            true => PollFlags::POLLIN | PollFlags::POLLOUT,
            false => PollFlags::POLLIN,
        }
    }

    /// When it wants to look at the screen, if it does.
    pub fn due(&self) -> Option<Instant> {
        self.session.wants_picture().then_some(self.look_at)
    }

    /// Whether it may look at the screen now, or may be about to.
    pub fn looks(&self, now: Instant) -> bool {
        self.look_at <= now
    }

    /// Takes what has arrived; tells whether the viewer wants no other beside it.
    ///
    /// # Errors
    /// When it is gone, or not understood.
    pub fn hear(&mut self) -> Result<bool, Gone> {
        let mut piece = [0; PIECE];
        let count = match recv(self.socket.as_raw_fd(), &mut piece, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(Gone),
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(_) => return Err(Gone),
        };
        let (mut alone, mut acted) = (false, false);
        let hands = &mut self.hands;
        let heard = self.session.receive(&piece[..count], |input| {
            if input == Input::Alone {
                alone = true;
            } else {
                acted = true;
                hands.act(input);
            }
        });
        if let Err(violation) = heard {
            tracing::info!(%violation, "a viewer of the screen is not understood");
            return Err(Gone);
        }
        if acted {
            // Something will happen on the screen.
            self.pause = FRAME;
            self.look_at = self.look_at.min(Instant::now() + FRAME);
        }
        Ok(alone)
    }

    /// Sends what there is to send, and looks at the screen when it is time.
    ///
    /// # Errors
    /// When the viewer is gone.
    pub fn show(&mut self, view: &View, now: Instant) -> Result<(), Gone> {
        self.flush()?;
        if !self.unsent && self.session.wants_picture() && self.looks(now) {
            if self.session.look(view.clone()) {
                self.pause = FRAME;
                self.flush()?;
            } else {
                self.pause = STILL.min(2 * self.pause);
            }
            self.look_at = now + self.pause;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let mut sent = 0;
        self.unsent = true;
        while sent < BATCH {
            let output = self.session.output();
            if output.is_empty() {
                self.unsent = false;
                return Ok(());
            }
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.socket.as_raw_fd(), output, flags) {
                Ok(count) => {
                    self.session.sent(count);
                    sent += count;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }
}

impl AsFd for Viewer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
