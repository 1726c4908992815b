//! Wishes about the machine as a whole, from vCPU and device threads to run control.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use lodge_devices::power::PowerControl;
use lodge_vmm_proto::{ExitReason, OnReset};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::vcpu::Gate;

/// What shall happen to the machine. When several things were wished for, the first in
/// this order of severity counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The guest is at its end.
    End(ExitReason, String),
    /// The guest wants a reset.
    Reset,
    /// The guest is to be paused.
    Pause,
}

impl Wish {
    /// Whether another wish changes nothing any more.
    fn outweighs(&self, other: &Self) -> bool {
        match self {
            Self::End(..) => true,
            Self::Reset => *other == Self::Pause,
            Self::Pause => false,
        }
    }
}

/// Takes wishes and stops all vCPUs at the gate, so that the guest does not go
/// on until the wish is granted.
pub struct Power {
    gate: Arc<Gate>,
    on_reset: OnReset,
    wish: Mutex<Option<Wish>>,
    event: EventFd,
}

impl Power {
    /// No wish, for the vCPUs of `gate`.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(gate: Arc<Gate>, on_reset: OnReset) -> io::Result<Self> {
        Ok(Self {
            gate,
            on_reset,
            wish: Mutex::new(None),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Ends the guest. The first reason given is kept.
    pub fn end(&self, reason: ExitReason, message: String) {
        self.wish(Wish::End(reason, message));
    }

    /// Pauses the guest.
    pub fn pause(&self) {
        self.wish(Wish::Pause);
    }

    /// Takes the wish, if there is one.
    pub fn take(&self) -> Option<Wish> {
        let mut present = self.wish.lock().unwrap();
        let _ = self.event.read();
        present.take()
    }

    fn wish(&self, wish: Wish) {
        // Under one lock: a wish that was granted between being noted and
        // closing the gate would leave the gate closed for ever.
        let mut present = self.wish.lock().unwrap();
        if !present
            .as_ref()
            .is_some_and(|present| present.outweighs(&wish))
        {
            *present = Some(wish);
        }
        self.gate.close();
        let _ = self.event.write(1);
    }
}

impl PowerControl for Power {
    fn reset(&self) {
        match self.on_reset {
            OnReset::Boot => self.wish(Wish::Reset),
            OnReset::Stop => self.end(ExitReason::GuestReset, String::new()),
        }
    }

    fn power_off(&self) {
        self.end(ExitReason::GuestPoweroff, String::new());
    }
}

impl AsRawFd for Power {
    /// Readable while there is a wish.
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_wish_counts_and_of_ends_the_first() {
        let power = || Power::new(Arc::new(Gate::new()), OnReset::Boot).unwrap();
        let end = |reason| Wish::End(reason, String::new());
        let one = power();
        one.pause();
        one.reset();
        one.pause();
        assert_eq!(one.take(), Some(Wish::Reset));
        assert_eq!(one.take(), None);
        let other = power();
        other.reset();
        other.end(ExitReason::Watchdog, String::new());
        other.power_off();
        other.reset();
        other.pause();
        assert_eq!(other.take(), Some(end(ExitReason::Watchdog)));
    }
}
