//! Holding a disk to so many operations and so many bytes in a second.
//!
//! A queue's thread asks before it takes a request from its driver, and leaves the request where it is for as long as it must: nothing that was taken
//! waits in here, so that pausing, saving, resetting and removing the disk take as long as they always do. Its
//! operation is charged at once, and forgiven if there was no request; how many bytes it moves is known only afterwards, and charged then. All queues of a disk share its [`Throttle`].

mod bucket;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::bucket::Bucket;
pub use self::bucket::Rate;
use crate::virtio::blk::Statistics;
use crate::virtio::blk::statistics::add;
use crate::virtio::wait::borrow;

/// A queue that must wait sleeps at least so long: several requests are taken together then, rather than one on each waking.
const NAP: u64 = 1_000_000;

/// What a disk is held to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Requests of any kind.
    pub operations: Option<Rate>,
    /// Bytes read and written.
    pub bytes: Option<Rate>,
}

/// What holds a disk to its limits, at any time other ones.
#[derive(Debug)]
pub struct Throttle {
    began: Instant,
    /// Whether there are any limits: without, nobody takes the lock.
    limited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: DiskLimits,
    operations: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Of each queue, to be signalled when there are other limits.
    changed: Vec<Arc<EventFd>>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            limited: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }
}

impl Throttle {
    /// Other limits, from now on; what was owed is forgotten. The same ones change nothing.
    pub fn set(&self, limits: DiskLimits) {
        let mut state = self.state();
        if state.limits == limits {
            return;
        }
        state.limits = limits;
        state.operations = limits.operations.map(Bucket::new);
        state.bytes = limits.bytes.map(Bucket::new);
        let limited = limits != DiskLimits::default();
        self.limited.store(limited, Ordering::Release);
        for changed in &state.changed {
            // It would take 2^64 changes to fail.
            let _ = changed.write(1);
        }
    }

    /// What the disk is held to.
    pub fn limits(&self) -> DiskLimits {
        self.state().limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limited(&self) -> bool {
        self.limited.load(Ordering::Acquire)
    }

    fn now(&self) -> u64 {
        // 584 years.
        self.began.elapsed().as_nanos() as u64
    }
}

impl State {
    fn wait(&self, now: u64) -> u64 {
        let buckets = [&self.operations, &self.bytes].into_iter().flatten();
        buckets.map(|bucket| bucket.wait(now)).max().unwrap_or(0)
    }

    fn take(&mut self, now: u64, operations: u64, bytes: u64) {
        if let Some(bucket) = &mut self.operations {
            bucket.take(now, operations);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(now, bytes);
        }
    }
}

/// One queue's way to the throttle of its disk.
pub(crate) struct Gate {
    throttle: Arc<Throttle>,
    statistics: Arc<Statistics>,
    changed: Arc<EventFd>,
    /// Since when a request may be waiting.
    closed_since: Option<u64>,
    /// Whether the operation of the next request is taken already. Else all queues would take the last one there is.
    reserved: bool,
}

impl Gate {
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(throttle: &Arc<Throttle>, statistics: &Arc<Statistics>) -> io::Result<Self> {
        let changed = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        throttle.state().changed.push(Arc::clone(&changed));
        Ok(Self {
            throttle: Arc::clone(throttle),
            statistics: Arc::clone(statistics),
            changed,
            closed_since: None,
            reserved: false,
        })
    }

    /// Signalled when it may have opened before it was to. It need not be read.
    pub fn changed(&self) -> BorrowedFd<'_> {
        borrow(&self.changed)
    }

    /// How long the next request must be left where it is; `None` when it may be taken.
    pub fn wait(&mut self) -> Option<Duration> {
        if self.reserved || !self.throttle.limited() {
            return None;
        }
        let now = self.throttle.now();
        let mut state = self.throttle.state();
        let wait = state.wait(now);
        if wait == 0 {
            state.take(now, 1, 0);
            self.reserved = true;
            return None;
        }
        self.closed_since.get_or_insert(now);
        Some(Duration::from_nanos(wait.max(NAP)))
    }

    /// A request was found. It moves so many bytes.
    pub fn charge(&mut self, bytes: u64) {
        let reserved = std::mem::take(&mut self.reserved);
        if self.closed_since.is_none() && !self.throttle.limited() {
            return;
        }
        let now = self.throttle.now();
        if let Some(since) = self.closed_since.take() {
            add(&self.statistics.throttled_ns, now.saturating_sub(since));
        }
        self.throttle.state().take(now, u64::from(!reserved), bytes);
    }

    /// No request was found: none was waiting either.
    pub fn idle(&mut self) {
        self.closed_since = None;
        if std::mem::take(&mut self.reserved)
            && let Some(bucket) = &mut self.throttle.state().operations
        {
            bucket.give_back(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(per_second: u64, burst: u64) -> DiskLimits {
        DiskLimits {
            operations: Some(Rate { per_second, burst }),
            bytes: None,
        }
    }

    fn gate(throttle: &Arc<Throttle>) -> (Gate, Arc<Statistics>) {
        let statistics = Arc::default();
        (Gate::new(throttle, &statistics).unwrap(), statistics)
    }

    #[test]
    fn without_limits_nobody_waits() {
        let throttle = Arc::default();
        let (mut gate, statistics) = gate(&throttle);
        for _ in 0..1000 {
            assert_eq!(gate.wait(), None);
            gate.charge(1 << 30);
        }
        assert_eq!(statistics.totals().throttled_us, 0);
    }

    #[test]
    fn queues_share_what_their_disk_has() {
        let throttle = Arc::default();
        let ((mut one, _), (mut other, _)) = (gate(&throttle), gate(&throttle));
        throttle.set(operations(1, 2));
        for turn in 0..3 {
            let gate = if turn == 1 { &mut other } else { &mut one };
            assert_eq!(gate.wait(), None);
            gate.charge(0);
        }
        assert!(one.wait().is_some());
        assert!(other.wait().is_some());
    }

    #[test]
    fn queues_do_not_take_the_same_operation() {
        let throttle = Arc::default();
        let mut gates = [(); 4].map(|()| gate(&throttle).0);
        throttle.set(operations(1, 1));
        // One that there is, and one on credit.
        let open = |gates: &mut [Gate; 4]| gates.each_mut().map(|gate| gate.wait().is_none());
        assert_eq!(open(&mut gates), [true, true, false, false]);
        assert_eq!(open(&mut gates), [true, true, false, false]);
        // There was no request for it.
        gates[0].idle();
        assert!(gates[2].wait().is_none());
        assert!(gates[3].wait().is_some());
    }

    #[test]
    fn looking_for_requests_costs_nothing() {
        let throttle = Arc::default();
        let (mut gate, _) = gate(&throttle);
        throttle.set(operations(1, 1));
        for _ in 0..1000 {
            assert_eq!(gate.wait(), None);
            gate.idle();
        }
    }

    #[test]
    fn the_slower_of_both_limits_counts() {
        let throttle: Arc<Throttle> = Arc::default();
        let (mut gate, _) = gate(&throttle);
        let rate = |per_second| {
            Some(Rate {
                per_second,
                burst: 1,
            })
        };
        throttle.set(DiskLimits {
            operations: rate(1),
            bytes: rate(1 << 10),
        });
        gate.charge(1 << 20);
        assert!(gate.wait().unwrap() > Duration::from_secs(1000));
    }

    #[test]
    fn other_limits_wake_those_who_wait() {
        let throttle: Arc<Throttle> = Arc::default();
        let (mut gate, statistics) = gate(&throttle);
        throttle.set(operations(1, 1));
        assert_eq!(gate.changed.read().unwrap(), 1);
        for _ in 0..1000 {
            gate.charge(0);
        }
        let wait = gate.wait().unwrap();
        assert!(wait > Duration::from_secs(990), "{wait:?}");
        // The same ones are no others, and forgive nothing.
        throttle.set(operations(1, 1));
        assert!(gate.wait().unwrap() > Duration::from_secs(990));
        assert!(gate.changed.read().is_err());
        throttle.set(operations(100, 1));
        assert_eq!(gate.changed.read().unwrap(), 1);
        assert_eq!(gate.wait(), None);
        throttle.set(DiskLimits::default());
        gate.charge(0);
        assert!(statistics.throttled_ns.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn time_without_requests_is_not_time_held_back() {
        let throttle: Arc<Throttle> = Arc::default();
        let (mut gate, statistics) = gate(&throttle);
        throttle.set(operations(1, 1));
        for _ in 0..3 {
            gate.charge(0);
        }
        assert!(gate.wait().is_some());
        gate.idle();
        gate.charge(0);
        assert_eq!(statistics.throttled_ns.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_waits_are_not_shorter_than_a_nap() {
        let throttle: Arc<Throttle> = Arc::default();
        let (mut gate, _) = gate(&throttle);
        throttle.set(operations(1_000_000, 1));
        // A burst of what comes in four milliseconds, and a little more.
        while gate.wait().is_none() {
            gate.charge(0);
        }
        let wait = gate.wait();
        assert!(
            wait.is_none_or(|wait| wait >= Duration::from_nanos(NAP)),
            "{wait:?}"
        );
    }
}
