//! What goes wrong in devices, from their threads to the managers, who tell people.
//!
//! A guest may break its devices as often as it likes, and a full disk fails every
//! request: of one device only so much is passed on.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lodge_vmm_proto::{DiskStuck, GuestEvent, WatchdogAction};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// After a complaint about a device, others about it are dropped for this long.
const QUIET: Duration = Duration::from_secs(60);

/// Takes complaints on any thread and keeps them for the main one.
pub struct Complaints {
    heard: Mutex<Heard>,
    event: EventFd,
}

#[derive(Default)]
struct Heard {
    /// When a device was last complained about.
    last: HashMap<String, Instant>,
    /// Not yet taken: one for each device at most, in effect.
    events: Vec<GuestEvent>,
}

impl Complaints {
    /// No complaints.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            heard: Mutex::default(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Passes on that `message` is wrong with `device`.
    pub fn add(&self, device: &str, message: &str) {
        self.add_at(Instant::now(), device, message);
    }

    fn add_at(&self, now: Instant, device: &str, message: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let last = heard.last.get(device);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < QUIET) {
            return;
        }
        heard.last.insert(device.to_owned(), now);
        tracing::warn!(device, "{message}");
        heard.events.push(GuestEvent::DeviceError {
            device: device.to_owned(),
            message: message.to_owned(),
        });
        let _ = self.event.write(1);
    }

    /// Passes on that the guest's system has crashed. Comes from a device that tells it once, and is not logged: a guest
    /// that crashes and resets for ever would fill the host with it.
    pub fn panicked(&self, crash_kernel: bool) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.events.push(GuestEvent::Panicked { crash_kernel });
        let _ = self.event.write(1);
    }

    /// Passes on that the guest's watchdog has expired. The guest has to do much between two of these: to start it, and to be reset
    /// or resumed.
    pub fn watchdog_expired(&self, action: WatchdogAction) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.events.push(GuestEvent::Watchdog { action });
        let _ = self.event.write(1);
    }

    /// Passes on that a disk cannot go on. Each of its queues tells that once until somebody resumes the guest.
    pub fn stuck(&self, disk: DiskStuck) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        tracing::warn!(disk = disk.serial, "held back: {}", disk.message);
        heard.events.push(GuestEvent::DiskStuck(disk));
        let _ = self.event.write(1);
    }

    /// Takes what has come since the last call, oldest first.
    pub fn take(&self) -> Vec<GuestEvent> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.event.read();
        std::mem::take(&mut heard.events)
    }
}

impl AsRawFd for Complaints {
    /// Readable while there is something to take.
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(events: Vec<GuestEvent>) -> Vec<String> {
        let name = |event| match event {
            GuestEvent::DeviceError { device, message } => format!("{device} {message}"),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(name).collect()
    }

    #[test]
    fn one_complaint_of_a_device_is_passed_on_at_a_time() {
        let complaints = Complaints::new().unwrap();
        let start = Instant::now();
        for number in 0..1000 {
            complaints.add_at(start, "disk0", &format!("{number}"));
            complaints.add_at(start, "nic0", &format!("{number}"));
        }
        assert_eq!(devices(complaints.take()), ["disk0 0", "nic0 0"]);
        complaints.add_at(start + QUIET / 2, "disk0", "early");
        assert_eq!(complaints.take(), []);
        complaints.add_at(start + QUIET, "disk0", "late");
        assert_eq!(devices(complaints.take()), ["disk0 late"]);
    }
}
