//! The balloon as the monitor sees it: what it wishes for, and what it is told.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{PAGE, Statistics};
use crate::virtio::DeviceEvents;

/// A driver is asked for statistics at most this often: it wakes a thread of the guest for them.
const STATISTICS_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a balloon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    /// Size in bytes that the balloon should have.
    pub target: u64,
    /// Size in bytes that it has, as the driver says: it may say anything.
    pub actual: u64,
    /// The driver's statistics, if it has ever given any.
    pub statistics: Option<Statistics>,
}

/// A way to a balloon for its monitor. Copies reach the same device.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Wakes the device's thread.
    wake: EventFd,
}

/// Sizes are in pages.
#[derive(Default)]
struct Inner {
    target: u32,
    /// The target of which the driver was told.
    told: u32,
    actual: u32,
    statistics: Option<Statistics>,
    asked_at: Option<Instant>,
    /// The driver is to be asked for statistics.
    wanted: bool,
    /// The driver, while there is one.
    events: Option<Arc<dyn DeviceEvents>>,
}

impl Inner {
    fn tell(&mut self) {
        if let Some(events) = &self.events
            && self.told != self.target
        {
            self.told = self.target;
            events.config_changed();
        }
    }
}

impl Handle {
    pub(super) fn new() -> io::Result<Self> {
        let shared = Shared {
            inner: Mutex::default(),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Wishes for a balloon of so many bytes, rounded down to whole pages of [`PAGE`] bytes and at
    /// most 16 TiB less a page. The driver is told at once, or as soon as there is one.
    pub fn set_target(&self, bytes: u64) {
        let mut inner = self.inner();
        inner.target = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        inner.tell();
    }

    /// What is known.
    pub fn condition(&self) -> Condition {
        let inner = self.inner();
        Condition {
            target: u64::from(inner.target) * PAGE,
            actual: u64::from(inner.actual) * PAGE,
            statistics: inner.statistics,
        }
    }

    /// Asks the driver for new statistics, unless that was done within the last second. They are in
    /// [`Handle::condition`] when the guest has got round to it.
    pub fn ask_statistics(&self) {
        let now = Instant::now();
        let mut inner = self.inner();
        let recent = |at: Instant| now.saturating_duration_since(at) < STATISTICS_PAUSE;
        if inner.events.is_none() || inner.asked_at.is_some_and(recent) {
            return;
        }
        inner.asked_at = Some(now);
        inner.wanted = true;
        // A full counter wakes just as well.
        let _ = self.shared.wake.write(1);
    }

    /// Readable when there may be a request for statistics.
    pub(super) fn wake(&self) -> &EventFd {
        &self.shared.wake
    }

    /// Whether statistics are wanted; from now on they are not.
    pub(super) fn take_request(&self) -> bool {
        std::mem::take(&mut self.inner().wanted)
    }

    pub(super) fn learn(&self, statistics: Statistics) {
        self.inner().statistics = Some(statistics);
    }

    /// Target and actual size in pages.
    pub(super) fn pages(&self) -> (u32, u32) {
        let inner = self.inner();
        (inner.target, inner.actual)
    }

    pub(super) fn set_actual(&self, pages: u32) {
        self.inner().actual = pages;
    }

    /// There is a driver. It may have missed a wish.
    pub(super) fn attach(&self, events: Arc<dyn DeviceEvents>) {
        let mut inner = self.inner();
        inner.events = Some(events);
        inner.tell();
    }

    /// The driver is not served for now.
    pub(super) fn detach(&self) {
        let mut inner = self.inner();
        inner.events = None;
        inner.wanted = false;
    }

    /// The driver is gone, and what it has said with it. The wish stays: the next driver reads it.
    pub(super) fn forget_driver(&self) {
        let mut inner = self.inner();
        inner.actual = 0;
        inner.statistics = None;
        inner.asked_at = None;
    }

    /// What a saved machine needs: target, the target the driver was told, actual size, in pages.
    pub(super) fn saved(&self) -> [u32; 3] {
        let inner = self.inner();
        [inner.target, inner.told, inner.actual]
    }

    pub(super) fn restore(&self, [target, told, actual]: [u32; 3]) {
        *self.inner() = Inner {
            target,
            told,
            actual,
            ..Inner::default()
        };
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap()
    }
}
