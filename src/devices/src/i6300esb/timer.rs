//! Counting down, on a clock that stands still while the guest does.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A clock that never goes back: time since any fixed moment.
pub type Clock = Box<dyn Fn() -> Duration + Send>;

/// The PCI clock in MHz.
const MHZ: u64 = 33;
/// The preload value is the upper 20 of the counter's 35 bits, or the middle 20 of its lower 25.
const SLOW_SHIFT: u32 = 15;
const FAST_SHIFT: u32 = 5;
/// No count is shorter, so that one which begins again by itself does not keep the event loop busy.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long `preload` of 20 bits takes: 0.993 ms each, or `fast` 0.97 µs.
pub(super) fn length(preload: u32, fast: bool) -> Duration {
    let shift = if fast { FAST_SHIFT } else { SLOW_SHIFT };
    // 2^35 cycles at most.
    let cycles = u64::from(preload) << shift;
    Duration::from_nanos(cycles * 1000 / MHZ).max(SHORTEST)
}

/// This process's time.
pub(super) fn monotonic() -> Clock {
    let start = Instant::now();
    Box::new(move || start.elapsed())
}

/// Which of the two counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    First,
    Second,
}

/// A count at a moment when it stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    stage: Stage,
    /// Nanoseconds until it runs out.
    left_ns: u64,
}

impl Count {
    /// Whether any preload value gives so much.
    pub(super) fn is_possible(&self) -> bool {
        Duration::from_nanos(self.left_ns) <= length(super::PRELOAD_MASK, false)
    }
}

/// The counter.
pub(super) struct Timer {
    clock: Clock,
    paused: bool,
    /// What is counted, and until when; while paused, how much is left.
    counting: Option<(Stage, Duration)>,
}

impl Timer {
    /// One that counts nothing.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            paused: false,
            counting: None,
        }
    }

    pub(super) fn start(&mut self, stage: Stage, length: Duration) {
        self.counting = Some((stage, self.origin() + length));
    }

    pub(super) fn stop(&mut self) {
        self.counting = None;
    }

    pub(super) fn pause(&mut self) {
        if !self.paused {
            let now = (self.clock)();
            self.counting = self
                .counting
                .map(|(stage, end)| (stage, end.saturating_sub(now)));
            self.paused = true;
        }
    }

    pub(super) fn resume(&mut self) {
        if self.paused {
            self.paused = false;
            let now = (self.clock)();
            self.counting = self.counting.map(|(stage, left)| (stage, now + left));
        }
    }

    /// Stops the count and tells its stage, if it has run out.
    pub(super) fn take_expired(&mut self) -> Option<Stage> {
        if self.left() == Some(Duration::ZERO) {
            self.counting.take().map(|(stage, _)| stage)
        } else {
            None
        }
    }

    /// How long until the count runs out. None while nothing is counted or time stands still.
    pub(super) fn left(&self) -> Option<Duration> {
        let (_, end) = self.counting.filter(|_| !self.paused)?;
        Some(end.saturating_sub((self.clock)()))
    }

    /// What is being counted.
    pub(super) fn count(&self) -> Option<Count> {
        let (stage, end) = self.counting?;
        let left = end.saturating_sub(self.origin());
        Some(Count {
            stage,
            // 20 minutes at most.
            left_ns: u64::try_from(left.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    /// Counts on from there.
    pub(super) fn set(&mut self, count: Option<Count>) {
        let origin = self.origin();
        self.counting =
            count.map(|Count { stage, left_ns }| (stage, origin + Duration::from_nanos(left_ns)));
    }

    /// What moments are measured from: the clock, or nothing while time stands still.
    fn origin(&self) -> Duration {
        if self.paused {
            Duration::ZERO
        } else {
            (self.clock)()
        }
    }
}
