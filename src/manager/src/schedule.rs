//! What is done for a guest every so often.

use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};

/// Minutes between two times that can be asked for.
pub(crate) const MINUTES: RangeInclusive<u32> = 5..=525_600;

/// How many of what is made can be kept.
pub(crate) const KEPT: RangeInclusive<u32> = 1..=500;

/// The time between two.
pub(crate) fn interval(every_minutes: u32) -> SignedDuration {
    SignedDuration::from_mins(every_minutes.into())
}

/// A moment that much later.
pub(crate) fn later(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Whether the next one is due. What was made later than now was made when the clock was wrong.
pub(crate) fn is_due(
    every_minutes: u32,
    made: impl Iterator<Item = Timestamp>,
    now: Timestamp,
) -> bool {
    let last = made.filter(|at| *at <= now).max();
    last.is_none_or(|last| later(last, interval(every_minutes)) <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-30T{text}Z").parse().unwrap()
    }

    #[test]
    fn one_is_due_when_the_last_is_old_enough() {
        let due = |made: &[&str], now| is_due(60, made.iter().map(|t| at(t)), at(now));
        assert!(due(&[], "12:00:00"), "the first at once");
        assert!(!due(&["11:00:01"], "12:00:00"));
        assert!(!due(&["11:00:01", "09:00:00"], "12:00:00"));
        assert!(due(&["11:00:00", "09:00:00"], "12:00:00"));
        // The clock was ahead once.
        assert!(due(&["23:00:00", "11:00:00"], "12:00:00"));
        assert!(!due(&["23:00:00", "11:30:00"], "12:00:00"));
    }
}
