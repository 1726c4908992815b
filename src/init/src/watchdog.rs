//! The hardware watchdog: it restarts the machine when PID 1 no longer turns its loop.
//!
//! `Documentation/watchdog/watchdog-api.rst` of the kernel.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

nix::ioctl_readwrite!(
    /// `WDIOC_SETTIMEOUT`: the driver answers with what it took, in seconds.
    set_timeout,
    b'W',
    6,
    libc::c_int
);

/// The wish; drivers take what is nearest to it, some as little as a few seconds.
const TIMEOUT_S: libc::c_int = 60;
const DEVICE: &str = "/dev/watchdog";

/// An armed watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: File,
    every: Duration,
    next: Instant,
}

impl Watchdog {
    /// Arms the watchdog, if the machine has one.
    pub(crate) fn arm(now: Instant) -> Option<Self> {
        let device = OpenOptions::new().write(true).open(DEVICE).ok()?;
        let mut seconds = TIMEOUT_S;
        // SAFETY: the request reads and writes one integer.
        if let Err(error) = unsafe { set_timeout(device.as_raw_fd(), &raw mut seconds) } {
            tracing::debug!("{DEVICE}: {error}; its own time is taken to be long enough");
        }
        tracing::debug!("{DEVICE} armed with {seconds} s");
        Some(Self {
            device,
            every: Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(2)) / 4,
            next: now,
        })
    }

    /// When it must be fed next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Feeds it when it is time.
    pub(crate) fn feed(&mut self, now: Instant) {
        if now >= self.next {
            self.next = now + self.every;
            // There is nothing else that could be done.
            let _ = self.device.write_all(b"k");
        }
    }

    /// Disarms it: unmounting may take longer than its time, and must not be cut short.
    pub(crate) fn disarm(mut self) {
        if let Err(error) = self.device.write_all(b"V") {
            tracing::debug!("{DEVICE}: {error}");
        }
    }
}
