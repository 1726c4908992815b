//! The card's clock (82574 datasheet, 10.2.10): SYSTIM, which drivers show as a PTP clock. Packets
//! get no time stamps.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One tick at 25 MHz, in nanoseconds.
const TICK: u128 = 40;

/// The clock. It stands while the guest is paused.
#[derive(Debug)]
pub(super) struct Clock {
    saved: Saved,
    /// Since when it has been going on from there.
    running: Option<Instant>,
}

/// Its value, and what it grows by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    value: u64,
    /// TIMINCA: by how much (24 bits), every so many ticks (8 bits).
    increment: u32,
}

impl Clock {
    /// Zero, and running if `running`.
    pub fn new(running: bool) -> Self {
        Self::restore(Saved::default(), running)
    }

    pub fn restore(saved: Saved, running: bool) -> Self {
        Self {
            saved,
            running: running.then(Instant::now),
        }
    }

    /// SYSTIM.
    pub fn value(&self) -> u64 {
        let elapsed = self.running.map_or(0, |since| since.elapsed().as_nanos());
        let Saved { value, increment } = self.saved;
        let period = u128::from(increment >> 24).max(1);
        let steps = (elapsed / TICK / period) as u64;
        value.wrapping_add(steps.wrapping_mul(u64::from(increment & 0xff_ffff)))
    }

    /// TIMINCA.
    pub fn increment(&self) -> u32 {
        self.saved.increment
    }

    pub fn set_increment(&mut self, increment: u32) {
        self.set(self.value());
        self.saved.increment = increment;
    }

    pub fn set(&mut self, value: u64) {
        self.saved.value = value;
        self.running = self.running.map(|_| Instant::now());
    }

    /// Stands still.
    pub fn pause(&mut self) {
        self.saved.value = self.value();
        self.running = None;
    }

    /// Goes on.
    pub fn resume(&mut self) {
        self.running.get_or_insert_with(Instant::now);
    }

    /// The state of a clock that stands.
    pub fn save(&self) -> Saved {
        self.saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_in_whole_increments_unless_paused() {
        let mut clock = Clock::new(true);
        assert_eq!(clock.value(), 0);
        clock.set_increment(0x0100_0030);
        let value = loop {
            match clock.value() {
                0 => std::thread::yield_now(),
                value => break value,
            }
        };
        assert_eq!(value % 0x30, 0);
        clock.pause();
        let stands = clock.value();
        assert!(stands >= value);
        assert_eq!(clock.value(), stands);
        clock.set(7);
        assert_eq!(clock.value(), 7);
        clock.resume();
        while clock.value() == 7 {
            std::thread::yield_now();
        }
    }
}
