//! Devices for which something is due at a moment, and waiting for it on the event loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::event_loop::{LoopHandle, Registration};

/// A device for which something is due now and then.
pub(crate) trait Due: Send + 'static {
    /// What is waited for, for messages.
    const WHAT: &'static str;

    /// Does what is due, and tells when something will be next.
    fn catch_up(&mut self) -> Option<Moment>;
}

/// When something is due.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// At this time of the host's clock, since 1970.
    At(Duration),
    /// When so much time has passed.
    In(Duration),
}

/// What makes the loop look at the device again.
pub(crate) struct Waking {
    event: EventFd,
    _registration: Registration,
}

impl Waking {
    pub(crate) fn wake(&self) {
        // A full counter wakes just as well.
        let _ = self.event.write(1);
    }
}

/// Has `events` wait for `device` by `clock`: the one of the moments that it names.
pub(crate) fn attach<D: Due>(
    device: &Arc<Mutex<D>>,
    clock: ClockId,
    events: &LoopHandle,
) -> io::Result<Waking> {
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let registration = events.register(Box::new(Waiter {
        device: Arc::downgrade(device),
        wake: event.try_clone()?,
        timer: TimerFd::new(clock, flags)?,
    }));
    Ok(Waking {
        event,
        _registration: registration,
    })
}

/// Only here is the timer touched: vCPU threads just wake the loop.
struct Waiter<D> {
    device: Weak<Mutex<D>>,
    wake: EventFd,
    timer: TimerFd,
}

impl<D: Due> Waiter<D> {
    fn rearm(&self, moment: Option<Moment>) {
        let (time, flags) = match moment {
            Some(Moment::At(time)) => (Some(time), TimerSetTimeFlags::TFD_TIMER_ABSTIME),
            Some(Moment::In(time)) => (Some(time), TimerSetTimeFlags::empty()),
            None => (None, TimerSetTimeFlags::empty()),
        };
        let set = match time {
            Some(time) => {
                // The timer takes 0 for "off".
                let time = time.max(Duration::from_nanos(1));
                let expiration = Expiration::OneShot(TimeSpec::from_duration(time));
                self.timer.set(expiration, flags)
            }
            None => self.timer.unset(),
        };
        if let Err(error) = set {
            tracing::warn!(%error, "{} cannot be waited for", D::WHAT);
        }
    }
}

impl<D: Due> MutEventSubscriber for Waiter<D> {
    fn init(&mut self, ops: &mut EventOps) {
        let timer = self.timer.as_fd().as_raw_fd();
        let added = ops
            .add(Events::new(&self.wake, EventSet::IN))
            .and_then(|()| ops.add(Events::new_raw(timer, EventSet::IN)));
        if let Err(error) = added {
            tracing::error!(%error, "{} cannot be served", D::WHAT);
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let _ = self.wake.read();
        let Some(device) = self.device.upgrade() else {
            self.rearm(None);
            return;
        };
        let mut locked = device.lock().unwrap();
        let moment = locked.catch_up();
        drop(locked);
        // Setting the timer also takes back an expiry not yet read.
        self.rearm(moment);
    }
}
