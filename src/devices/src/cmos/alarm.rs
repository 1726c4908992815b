//! Alarm and update interrupts: which moment comes next, and waiting for it on the event loop.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::timerfd::ClockId;

use super::{Cmos, REGISTER_B};
use crate::due::{self, Due, Moment, Waking};
use crate::event_loop::LoopHandle;
use crate::interrupt::{DrivenLine, InterruptLine};

const C_REQUEST: u8 = 0x80;
pub(super) const ALARM: u8 = 0x20;
pub(super) const UPDATE: u8 = 0x10;
/// Alarm bytes from here on match anything (MC146818, "don't care").
const ANY: u8 = 0xc0;
const DAY: i64 = 86_400;

/// The interrupt, and what makes the loop look at it again.
pub(super) struct Alarm {
    irq: DrivenLine,
    waking: Waking,
}

pub(super) fn attach(
    cmos: Cmos,
    irq: Arc<dyn InterruptLine>,
    events: &LoopHandle,
) -> io::Result<Arc<Mutex<Cmos>>> {
    let cmos = Arc::new(Mutex::new(cmos));
    let waking = due::attach(&cmos, ClockId::CLOCK_REALTIME, events)?;
    cmos.lock().unwrap().alarm = Some(Alarm {
        irq: DrivenLine::new(irq),
        waking,
    });
    Ok(cmos)
}

impl Due for Cmos {
    const WHAT: &'static str = "the clock's alarm";

    fn catch_up(&mut self) -> Option<Moment> {
        self.note_updates();
        self.next_event().map(Moment::At)
    }
}

impl Cmos {
    /// Notes the updates since this was last called, and the alarm if one of them was its moment.
    pub(super) fn note_updates(&mut self) {
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
        self.note_updates();
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
                alarm.waking.wake();
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
