//! Alarm and update interrupts: which moment comes next, and waiting for it on the event loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Cmos, REGISTER_B};
use crate::event_loop::{LoopHandle, Registration};
use crate::interrupt::{DrivenLine, InterruptLine};

const C_REQUEST: u8 = 0x80;
pub(super) const ALARM: u8 = 0x20;
pub(super) const UPDATE: u8 = 0x10;
/// Alarm bytes from here on match anything (MC146818, "don't care").
const ANY: u8 = 0xc0;
const DAY: i64 = 86_400;

/// The interrupt, and the event that makes the loop look at it again.
pub(super) struct Alarm {
    irq: DrivenLine,
    wake: EventFd,
    _registration: Registration,
}

pub(super) fn attach(
    cmos: Cmos,
    irq: Arc<dyn InterruptLine>,
    events: &LoopHandle,
) -> io::Result<Arc<Mutex<Cmos>>> {
    let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
    let loop_wake = wake.try_clone()?;
    let cmos = Arc::new(Mutex::new(cmos));
    let registration = events.register(Box::new(Waiter {
        cmos: Arc::downgrade(&cmos),
        wake: loop_wake,
        timer,
    }));
    cmos.lock().unwrap().alarm = Some(Alarm {
        irq: DrivenLine::new(irq),
        wake,
        _registration: registration,
    });
    Ok(cmos)
}

impl Cmos {
    /// Notes the updates since this was last called, and the alarm if one of them was its moment.
    pub(super) fn catch_up(&mut self) {
        if self.registers.held.is_none() && !self.paused {
            let now = self.now();
            let before = std::mem::replace(&mut self.registers.updated, now);
            if now != before {
                self.registers.flags |= UPDATE;
            }
            if self.next_alarm(before).is_some_and(|alarm| alarm <= now) {
                self.registers.flags |= ALARM;
            }
        }
        let level = self.irq_level();
        if let Some(alarm) = &mut self.alarm {
            alarm.irq.set(level);
        }
    }

    /// Reads and clears the flags, which lowers the interrupt.
    pub(super) fn take_flags(&mut self) -> u8 {
        self.catch_up();
        let request = if self.irq_level() { C_REQUEST } else { 0 };
        let flags = std::mem::take(&mut self.registers.flags) | request;
        self.alarm_changed();
        flags
    }

    /// Brings interrupt and waiting in line with the registers.
    pub(super) fn alarm_changed(&mut self) {
        let level = self.irq_level();
        let waits = self.get(REGISTER_B) & (ALARM | UPDATE) != 0;
        if let Some(alarm) = &mut self.alarm {
            alarm.irq.set(level);
            if waits && !level {
                // A full counter wakes just as well.
                let _ = alarm.wake.write(1);
            }
        }
    }

    pub(super) fn force_irq(&mut self) {
        let level = self.irq_level();
        if let Some(alarm) = &mut self.alarm {
            alarm.irq.force(level);
        }
    }

    fn irq_level(&self) -> bool {
        self.registers.flags & self.get(REGISTER_B) & (ALARM | UPDATE) != 0
    }

    /// Host time, since 1970, of the next moment that could raise the interrupt.
    pub(super) fn next_event(&self) -> Option<Duration> {
        let enabled = self.get(REGISTER_B);
        if self.paused || self.registers.held.is_some() || self.irq_level() {
            return None;
        }
        let now = self.now();
        let moment = if enabled & UPDATE != 0 {
            now.checked_add(1)
        } else if enabled & ALARM != 0 {
            self.next_alarm(now)
        } else {
            None
        };
        let host = moment?.checked_sub(self.registers.offset)?;
        // A moment before 1970 on the host's clock is past.
        Some(Duration::from_secs(u64::try_from(host).unwrap_or(0)))
    }

    /// The first moment after `time` that the alarm bytes match.
    fn next_alarm(&self, time: i64) -> Option<i64> {
        let first = time.checked_add(1)?;
        let from = first.rem_euclid(DAY);
        let midnight = first.checked_sub(from)?;
        let today = self.match_of_day(from);
        let found = today.or_else(|| Some(self.match_of_day(0)? + DAY));
        midnight.checked_add(found?)
    }

    /// The first second of the day, from `from` on, that the alarm bytes match.
    fn match_of_day(&self, from: i64) -> Option<i64> {
        let seconds = self.alarm_byte(0x01, 60)?;
        let minutes = self.alarm_byte(0x03, 60)?;
        let hours = self.alarm_byte(0x05, 24)?;
        for hour in hours {
            for minute in minutes.clone() {
                let start = hour * 3600 + minute * 60;
                if start + 59 < from {
                    continue;
                }
                let found = seconds.clone().map(|second| start + second);
                if let Some(second) = found.into_iter().find(|&second| second >= from) {
                    return Some(second);
                }
            }
        }
        None
    }

    /// The values an alarm byte matches; `None` when it never can.
    fn alarm_byte(&self, index: u8, limit: u8) -> Option<std::ops::Range<i64>> {
        let value = self.get(index);
        if value >= ANY {
            return Some(0..i64::from(limit));
        }
        let number = if index == 0x05 {
            self.decode_hour(value)
        } else {
            self.decode(value)
        };
        (number < limit).then(|| i64::from(number)..i64::from(number) + 1)
    }
}

/// Waits for the next moment. Only here is the timer touched: vCPU threads just wake the loop.
struct Waiter {
    cmos: Weak<Mutex<Cmos>>,
    wake: EventFd,
    timer: TimerFd,
}

impl Waiter {
    fn rearm(&self, moment: Option<Duration>) {
        let set = match moment {
            Some(moment) => {
                // The timer takes 0 for "off".
                let moment = moment.max(Duration::from_nanos(1));
                let expiration = Expiration::OneShot(TimeSpec::from_duration(moment));
                self.timer
                    .set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.timer.unset(),
        };
        if let Err(error) = set {
            tracing::warn!(%error, "clock alarm cannot be waited for");
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
            tracing::error!(%error, "clock alarm cannot be served");
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let _ = self.wake.read();
        let Some(cmos) = self.cmos.upgrade() else {
            self.rearm(None);
            return;
        };
        let mut cmos = cmos.lock().unwrap();
        cmos.catch_up();
        let moment = cmos.next_event();
        drop(cmos);
        // Setting the timer also takes back an expiry not yet read.
        self.rearm(moment);
    }
}
