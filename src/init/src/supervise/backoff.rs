//! How long to wait before a child that ended is started again.

use std::time::Duration;

/// The first wait, and the wait after every run that was a success.
pub const FIRST: Duration = Duration::from_millis(100);
/// Each failure in a row doubles the wait, up to this.
pub const MOST: Duration = Duration::from_secs(30);
/// A run that lasted this long was a success.
pub const STEADY: Duration = Duration::from_secs(3);
/// A child that came up and then ended is started at most twice a second, however often that happens.
pub const SPACING: Duration = Duration::from_millis(500);

/// Counts failures in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackOff {
    failures: u32,
}

impl BackOff {
    /// The wait after a run that lasted `ran`. `came_up` says that the child had reported to be at work, which makes
    /// even a short run a success: the manager must be back within a second, whatever killed it.
    pub fn after(&mut self, ran: Duration, came_up: bool) -> Duration {
        if came_up {
            self.failures = 0;
            return SPACING.saturating_sub(ran).max(FIRST);
        }
        if ran >= STEADY {
            self.failures = 0;
            return FIRST;
        }
        let wait = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        wait.min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn failing_fast_doubles_up_to_the_limit() {
        let mut back_off = BackOff::default();
        let waits: Vec<Duration> = (0..11).map(|_| back_off.after(ms(10), false)).collect();
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30_000, 30_000,
        ];
        assert_eq!(waits, expected.map(ms));
        assert_eq!(back_off.after(STEADY, false), FIRST);
        assert_eq!(back_off.after(ms(10), false), FIRST);
        for _ in 0..100 {
            back_off.after(ms(1), false);
        }
        assert_eq!(back_off.after(ms(1), false), MOST);
    }

    #[test]
    fn killed_again_and_again_it_is_back_within_a_second() {
        let mut back_off = BackOff::default();
        for ran in [0, 10, 250, 499, 2000] {
            let wait = back_off.after(ms(ran), true);
            assert!(wait <= SPACING, "{wait:?}");
            assert!(wait + ms(ran) >= SPACING, "{wait:?} after {ran}");
        }
    }
}
