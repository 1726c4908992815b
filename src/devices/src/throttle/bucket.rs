//! A token bucket without a clock of its own.

/// How fast something may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So much in a second, at least 1.
    pub per_second: u64,
    /// So much at once after a rest; what comes in four milliseconds is always had.
    pub burst: u64,
}

/// Time for which a bucket at least holds what comes, in nanoseconds: whoever sleeps for a little longer than was needed loses nothing.
const SHORTEST: u64 = 4_000_000;

const SECOND: u128 = 1_000_000_000;

/// A bucket that fills at its rate, and is full at first.
///
/// Moments are nanoseconds since its owner began to count; they may stand still and do not go back. Whoever finds no debt may take as
/// much as there is to take, be it more than there is: the debt is for those who come later. So nothing is too large for a bucket, and nobody need know
/// what the next one takes.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When it is full again, if nobody takes anything.
    full_at: u64,
}

impl Bucket {
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at: 0 }
    }

    /// How long until the debt is paid: 0 if there is none.
    pub fn wait(&self, now: u64) -> u64 {
        let holds = self.time(self.rate.burst).max(SHORTEST);
        self.full_at.saturating_sub(holds).saturating_sub(now)
    }

    pub fn take(&mut self, now: u64, amount: u64) {
        let from = self.full_at.max(now);
        self.full_at = from.saturating_add(self.time(amount));
    }

    /// Undoes that so much was taken.
    pub fn give_back(&mut self, amount: u64) {
        self.full_at = self.full_at.saturating_sub(self.time(amount));
    }

    /// In what time so much comes, rounded up: never faster than the rate.
    fn time(&self, amount: u64) -> u64 {
        let rate = u128::from(self.rate.per_second.max(1));
        let time = (u128::from(amount) * SECOND).div_ceil(rate);
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(per_second: u64, burst: u64) -> Bucket {
        Bucket::new(Rate { per_second, burst })
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = bucket(100, 10);
        let mut now = 5_000_000_000;
        // The last of these leaves a debt.
        for taken in 0..11 {
            assert_eq!(bucket.wait(now), 0, "{taken}");
            bucket.take(now, 1);
        }
        for _ in 0..50 {
            assert_eq!(bucket.wait(now), 10_000_000);
            now += 10_000_000;
            assert_eq!(bucket.wait(now), 0);
            bucket.take(now, 1);
        }
        // After a rest there is a burst again, and no more than that.
        now += 3600 * 1_000_000_000;
        let mut taken = 0;
        while bucket.wait(now) == 0 {
            bucket.take(now, 1);
            taken += 1;
        }
        assert_eq!(taken, 11);
    }

    #[test]
    fn nothing_is_too_large() {
        let mut bucket = bucket(1, 1);
        bucket.take(0, 1000);
        assert_eq!(bucket.wait(0), 999 * 1_000_000_000);
        bucket.take(0, u64::MAX);
        bucket.take(u64::MAX, u64::MAX);
        assert!(bucket.wait(0) > 0);
    }

    /// Somebody who always takes as soon as it may, and sleeps a little too long.
    fn greedy(rate: Rate, amounts: &[u64], late: u64) -> (u64, u64) {
        let mut bucket = Bucket::new(rate);
        let (mut now, mut sum) = (0_u64, 0);
        for &amount in amounts {
            let wait = bucket.wait(now);
            if wait > 0 {
                now += wait + late;
            }
            bucket.take(now, amount);
            sum += amount;
        }
        (now, sum)
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_allows(
            per_second in 1_u64..10_000_000_000, burst in 0_u64..1_000_000_000,
            amounts in prop::collection::vec(1_u64..10_000_000, 1..200), late in 0_u64..3_000_000
        ) {
            let (now, sum) = greedy(Rate { per_second, burst }, &amounts, late);
            let largest = amounts.iter().max().copied().unwrap_or(0);
            let came = u128::from(per_second) * u128::from(now) / SECOND;
            let held = u128::from(burst).max(u128::from(per_second) * u128::from(SHORTEST) / SECOND + 1);
            prop_assert!(u128::from(sum) <= came + held + u128::from(largest) + 1);
        }

        #[test]
        fn sleeping_a_little_too_long_loses_nothing(
            per_second in 1_000_u64..10_000_000, late in 0_u64..SHORTEST / 2
        ) {
            let amounts = [1; 500];
            let (now, sum) = greedy(Rate { per_second, burst: 0 }, &amounts, late);
            // As fast as the rate, but for what the last sleep was too long.
            let due = u128::from(sum) * SECOND / u128::from(per_second) + u128::from(late);
            prop_assert!(u128::from(now) <= due + u128::from(SHORTEST));
        }

        #[test]
        fn the_wait_is_exact(
            per_second in 1_u64..10_000_000_000, burst in 0_u64..1_000_000_000,
            amounts in prop::collection::vec(1_u64..10_000_000, 1..20), now in 0_u64..1 << 50
        ) {
            let mut bucket = Bucket::new(Rate { per_second, burst });
            for amount in amounts {
                bucket.take(now, amount);
            }
            let wait = bucket.wait(now);
            prop_assert_eq!(bucket.wait(now + wait), 0);
            if wait > 0 {
                prop_assert_eq!(bucket.wait(now + wait - 1), 1);
            }
        }
    }
}
