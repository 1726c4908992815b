//! Slowing down those who guess passwords.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Wrong passwords that cost nothing but the try.
const FREE: u32 = 3;

/// The first pause; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// Failures are forgotten after that long without another.
const FORGET: Duration = Duration::from_secs(3600);

/// Most pairs of user and address remembered; the oldest go first.
const MOST: usize = 10_000;

/// Remembers failures per user and address: an attacker elsewhere cannot lock a user out,
/// and one address cannot go through many users faster than through one ([`Throttle::check`] takes
/// the worse of the two counts, with ten times the allowance for the address alone).
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    failures: HashMap<Key, Failures>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(String, IpAddr),
    Address(IpAddr),
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

/// Addresses of one customer's IPv6 network count as one.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

fn keys(user: &str, address: IpAddr) -> [(Key, u32); 2] {
    let address = network(address);
    // What is no user's name must not fill the memory.
    let user: String = user.chars().take(64).collect();
    [
        (Key::Pair(user, address), FREE),
        (Key::Address(address), FREE * 10),
    ]
}

impl Throttle {
    /// How long this user must wait at this address before the next try, if at all.
    pub(crate) fn check(&self, user: &str, address: IpAddr, now: Instant) -> Option<Duration> {
        keys(user, address)
            .iter()
            .filter_map(|(key, free)| {
                let failures = self.failures.get(key)?;
                let until = failures.last + pause(failures.count, *free);
                until
                    .checked_duration_since(now)
                    .filter(|left| !left.is_zero())
            })
            .max()
    }

    /// A wrong password. Counted before the password is checked, so that many tries at once
    /// do not all pass; [`Throttle::succeeded`] takes it back.
    pub(crate) fn failed(&mut self, user: &str, address: IpAddr, now: Instant) {
        if self.failures.len() >= MOST {
            self.forget(now);
        }
        for (key, _) in keys(user, address) {
            let failures = self.failures.entry(key).or_insert(Failures {
                count: 0,
                last: now,
            });
            if now.saturating_duration_since(failures.last) > FORGET {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
    }

    /// A right password.
    pub(crate) fn succeeded(&mut self, user: &str, address: IpAddr) {
        let [(pair, _), (address, _)] = keys(user, address);
        self.failures.remove(&pair);
        if let Some(failures) = self.failures.get_mut(&address) {
            failures.count = failures.count.saturating_sub(1);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.failures
            .retain(|_, failures| now.saturating_duration_since(failures.last) <= FORGET);
        while self.failures.len() >= MOST {
            let oldest = self
                .failures
                .iter()
                .min_by_key(|(_, failures)| failures.last)
                .map(|(key, _)| key.clone());
            match oldest {
                Some(key) => self.failures.remove(&key),
                None => return,
            };
        }
    }
}

fn pause(count: u32, free: u32) -> Duration {
    match count.checked_sub(free) {
        None => Duration::ZERO,
        Some(over) => FIRST
            .saturating_mul(1_u32.checked_shl(over).unwrap_or(u32::MAX))
            .min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn pauses_grow_and_end() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for expected in [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            throttle.failed("ann", HERE, now);
            let left = throttle.check("ann", HERE, now).unwrap_or_default();
            assert_eq!(left.as_secs(), expected);
        }
        assert_eq!(throttle.check("ann", HERE, now + LONGEST), None);
        throttle.failed("ann", HERE, now + FORGET * 2);
        assert_eq!(throttle.check("ann", HERE, now + FORGET * 2), None);
    }

    #[test]
    fn others_are_not_locked_out() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..10 {
            throttle.failed("ann", HERE, now);
        }
        assert_eq!(throttle.check("ann", THERE, now), None);
        assert_eq!(throttle.check("bob", HERE, now), None);
    }

    #[test]
    fn one_address_cannot_try_many_users() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..40 {
            throttle.failed(&format!("user{number}"), HERE, now);
        }
        assert!(throttle.check("ann", HERE, now).is_some());
        assert_eq!(throttle.check("ann", THERE, now), None);
        let network: IpAddr = "2001:db8::1".parse().unwrap();
        for _ in 0..40 {
            throttle.failed("ann", network, now);
        }
        let neighbour = "2001:db8::ffff:1".parse().unwrap();
        assert!(throttle.check("bob", neighbour, now).is_some());
    }

    #[test]
    fn a_right_password_clears() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..5 {
            throttle.failed("ann", HERE, now);
        }
        throttle.succeeded("ann", HERE);
        assert_eq!(throttle.check("ann", HERE, now), None);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_pauses_are(tries in prop::collection::vec((any::<u16>(), any::<u32>()), 0..300)) {
            let (mut throttle, now) = (Throttle::default(), Instant::now());
            for (user, address) in tries {
                let address = IpAddr::V4(address.into());
                throttle.failed(&user.to_string(), address, now);
                prop_assert!(throttle.check(&user.to_string(), address, now).unwrap_or_default() <= LONGEST);
            }
            prop_assert!(throttle.failures.len() <= MOST + 1);
        }
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..(MOST + 50) {
            throttle.failed(&number.to_string(), HERE, now);
        }
        assert!(throttle.failures.len() <= MOST + 1);
    }
}
