//! The event loop's side of a console: sockets out of the ring and into the input queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use vmm_sys_util::epoll::EventSet;

use super::{Inner, MAX_INPUT};

/// Most bytes moved for one viewer before the others have their turn.
const BATCH: usize = 64 << 10;
const PIECE: usize = 16 << 10;

/// After something was sent, how long what comes next is gathered. A serial port hands over byte by byte, and each piece
/// sent costs every process on the way to a person a wake-up; what comes after a silence is sent at once.
const GATHERING: Duration = Duration::from_millis(4);

pub(super) struct Viewers {
    shared: Arc<Inner>,
    list: Vec<Viewer>,
    piece: Vec<u8>,
    /// Set while output is gathered. Until it expires the console counts as awake, so that writers need not wake the loop.
    gathering: TimerFd,
}

struct Viewer {
    socket: OwnedFd,
    /// Position in the ring of the next byte to send.
    position: u64,
    /// Words of our own (that bytes were lost), sent before anything else.
    marker: Vec<u8>,
    interest: EventSet,
}

/// The viewer is gone.
#[derive(Clone, Copy)]
struct Gone;

impl Viewers {
    pub(super) fn new(shared: Arc<Inner>) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self {
            shared,
            list: Vec::new(),
            piece: Vec::with_capacity(PIECE),
            gathering: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
        })
    }

    /// Serves what has come, and gathers what comes next.
    fn woken(&mut self, ops: &mut EventOps) {
        let _ = self.shared.wake.read();
        self.serve(ops);
        self.gather();
    }

    /// Serves what was gathered. When that is nothing, the next writer wakes the loop again.
    fn gathered(&mut self, ops: &mut EventOps) {
        // Cleared before looking, so that whatever comes meanwhile wakes again.
        self.shared.awake.store(false, Ordering::SeqCst);
        let positions = |viewers: &Self| viewers.list.iter().map(|v| v.position).sum::<u64>();
        let before = positions(self);
        self.serve(ops);
        if positions(self) == before {
            // Set anew it would take back an expiry; here it has to be taken by hand.
            let _ = self.gathering.unset();
        } else {
            self.shared.awake.store(true, Ordering::SeqCst);
            self.gather();
        }
    }

    fn gather(&self) {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(GATHERING));
        if let Err(error) = self.gathering.set(expiration, TimerSetTimeFlags::empty()) {
            tracing::warn!(%error, "console output cannot be gathered");
            self.shared.awake.store(false, Ordering::SeqCst);
        }
    }

    /// Takes in new viewers, and sends every viewer what there is for it.
    fn serve(&mut self, ops: &mut EventOps) {
        let arriving = std::mem::take(&mut *self.shared.arriving.lock().unwrap());
        for (socket, position) in arriving {
            self.admit(socket, position, ops);
        }
        for index in (0..self.list.len()).rev() {
            // One that waits for its socket is served when that has room.
            let outcome = if self.list[index].interest.contains(EventSet::OUT) {
                Ok(())
            } else {
                self.flush(index)
            };
            self.conclude(index, outcome, ops);
        }
    }

    fn admit(&mut self, socket: OwnedFd, position: u64, ops: &mut EventOps) {
        let interest = EventSet::IN;
        if let Err(error) = ops.add(Events::new(&socket, interest)) {
            tracing::warn!(%error, "console viewer cannot be watched");
            self.shared.viewers.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        self.list.push(Viewer {
            socket,
            position,
            marker: Vec::new(),
            interest,
        });
    }

    fn served(&mut self, fd: RawFd, set: EventSet, ops: &mut EventOps) {
        let Some(index) = self.list.iter().position(|v| v.socket.as_raw_fd() == fd) else {
            return;
        };
        let mut outcome = Ok(());
        if set.contains(EventSet::IN) {
            outcome = self.take_input(index);
        } else if set.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            outcome = Err(Gone);
        }
        if set.contains(EventSet::OUT) {
            outcome = outcome.and_then(|()| {
                self.list[index].interest.remove(EventSet::OUT);
                self.flush(index)
            });
        }
        self.conclude(index, outcome, ops);
    }

    /// Drops a viewer that is gone, and tells epoll what the others wait for.
    fn conclude(&mut self, index: usize, outcome: Result<(), Gone>, ops: &mut EventOps) {
        if outcome.is_err() {
            let viewer = self.list.swap_remove(index);
            // The descriptor was added by us and is still open.
            let _ = ops.remove(Events::empty(&viewer.socket));
            self.shared.viewers.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let full = self.shared.input.lock().unwrap().len() >= MAX_INPUT;
        let viewer = &mut self.list[index];
        viewer.interest.set(EventSet::IN, !full);
        let _ = ops.modify(Events::new(&viewer.socket, viewer.interest));
    }

    /// Sends until the socket is full or everything is sent; leaves interest in `OUT` when
    /// something is left.
    fn flush(&mut self, index: usize) -> Result<(), Gone> {
        let mut sent = 0;
        loop {
            self.load_piece(index);
            let viewer = &mut self.list[index];
            if self.piece.is_empty() {
                return Ok(());
            }
            if sent >= BATCH {
                viewer.interest.insert(EventSet::OUT);
                return Ok(());
            }
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(viewer.socket.as_raw_fd(), &self.piece, flags) {
                Ok(count) => {
                    sent += count;
                    viewer.sent(count);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    viewer.interest.insert(EventSet::OUT);
                    return Ok(());
                }
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Copies what is to be sent next, so that the ring's lock is not held while sending.
    fn load_piece(&mut self, index: usize) {
        let viewer = &mut self.list[index];
        let ring = self.shared.ring.lock().unwrap();
        self.piece.clear();
        if viewer.position < ring.start() {
            let lost = ring.start() - viewer.position;
            viewer.position = ring.start();
            // While a marker waits to be sent, it speaks for later losses too.
            if viewer.marker.is_empty() {
                let text = format!("\r\n[lodge: {lost} bytes lost, viewer too slow]\r\n");
                viewer.marker = text.into_bytes();
            }
        }
        if !viewer.marker.is_empty() {
            self.piece.extend_from_slice(&viewer.marker);
            return;
        }
        let (first, second) = ring.slices(viewer.position);
        let first = &first[..first.len().min(PIECE)];
        self.piece.extend_from_slice(first);
        let second = &second[..second.len().min(PIECE - first.len())];
        self.piece.extend_from_slice(second);
    }

    fn take_input(&mut self, index: usize) -> Result<(), Gone> {
        let socket = self.list[index].socket.as_raw_fd();
        let mut input = self.shared.input.lock().unwrap();
        let room = MAX_INPUT - input.len().min(MAX_INPUT);
        if room == 0 {
            return Ok(());
        }
        let mut typed = [0; MAX_INPUT];
        let outcome = match recv(socket, &mut typed[..room], MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(Gone),
            Ok(count) => {
                input.extend(&typed[..count]);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(_) => Err(Gone),
        };
        let waiting = !input.is_empty();
        drop(input);
        if let Some(hook) = self.shared.input_hook.get().filter(|_| waiting) {
            hook();
        }
        outcome
    }
}

impl Viewer {
    fn sent(&mut self, count: usize) {
        if self.marker.is_empty() {
            self.position += count as u64;
        } else {
            self.marker.drain(..count.min(self.marker.len()));
        }
    }
}

impl MutEventSubscriber for Viewers {
    fn init(&mut self, ops: &mut EventOps) {
        let timer = self.gathering.as_fd().as_raw_fd();
        let added = ops
            .add(Events::new(&self.shared.wake, EventSet::IN))
            .and_then(|()| ops.add(Events::new_raw(timer, EventSet::IN)));
        if let Err(error) = added {
            tracing::error!(%error, "console cannot be served");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.shared.wake.as_raw_fd() {
            self.woken(ops);
        } else if events.fd() == self.gathering.as_fd().as_raw_fd() {
            self.gathered(ops);
        } else {
            self.served(events.fd(), events.event_set(), ops);
        }
    }
}

/// A guest's last words may still be waiting to be gathered.
impl Drop for Viewers {
    fn drop(&mut self) {
        for index in 0..self.list.len() {
            let _ = self.flush(index);
        }
    }
}
