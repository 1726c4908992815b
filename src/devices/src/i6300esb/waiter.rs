//! Waiting on the event loop for the count to run out.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Watchdog;
use crate::event_loop::{LoopHandle, Registration};

/// What makes the loop look at the count again.
pub(super) struct Waking {
    event: EventFd,
    _registration: Registration,
}

impl Waking {
    pub(super) fn wake(&self) {
        // A full counter wakes just as well.
        let _ = self.event.write(1);
    }
}

/// Has `events` wait for `watchdog`.
pub(super) fn attach(watchdog: &Arc<Mutex<Watchdog>>, events: &LoopHandle) -> io::Result<Waking> {
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let registration = events.register(Box::new(Waiter {
        watchdog: Arc::downgrade(watchdog),
        wake: event.try_clone()?,
        timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
    }));
    Ok(Waking {
        event,
        _registration: registration,
    })
}

/// Only here is the timer touched: vCPU threads just wake the loop.
struct Waiter {
    watchdog: Weak<Mutex<Watchdog>>,
    wake: EventFd,
    timer: TimerFd,
}

impl Waiter {
    fn rearm(&self, left: Option<Duration>) {
        let set = match left {
            Some(left) => {
                // The timer takes 0 for "off".
                let left = left.max(Duration::from_nanos(1));
                let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
                self.timer.set(expiration, TimerSetTimeFlags::empty())
            }
            None => self.timer.unset(),
        };
        if let Err(error) = set {
            tracing::warn!(%error, "the watchdog cannot be waited for");
        }
    }
}

impl MutEventSubscriber for Waiter {
    fn init(&mut self, ops: &mut EventOps) {
        let timer = self.timer.as_fd().as_raw_fd();
        let added = ops
            .add(Events::new(&self.wake, EventSet::IN))
            .and_then(|()| ops.add(Events::new_raw(timer, EventSet::IN)));
        if let Err(error) = added {
            tracing::error!(%error, "the watchdog cannot be served");
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let _ = self.wake.read();
        let Some(watchdog) = self.watchdog.upgrade() else {
            self.rearm(None);
            return;
        };
        let mut watchdog = watchdog.lock().unwrap();
        watchdog.catch_up();
        let left = watchdog.timer.left();
        drop(watchdog);
        // Setting the timer also takes back an expiry not yet read.
        self.rearm(left);
    }
}
