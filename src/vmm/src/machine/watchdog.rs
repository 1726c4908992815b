//! The watchdog, on machines that are to have one.

use std::sync::Arc;

use lodge_devices::i6300esb::{OnExpiry, Watchdog};
use lodge_devices::power::PowerControl;
use lodge_vmm_proto::{ExitReason, LaunchError, WatchdogAction};

use super::hardware::Hardware;
use super::{Failure, slots};
use crate::complaints::Complaints;
use crate::power::Power;

/// Tells of an expiry, then wishes for what is to come of it. The order is what those who listen see.
pub(super) fn expires_to(
    action: WatchdogAction,
    power: &Arc<Power>,
    complaints: &Arc<Complaints>,
) -> OnExpiry {
    let (power, complaints) = (Arc::clone(power), Arc::clone(complaints));
    Arc::new(move || {
        complaints.watchdog_expired(action);
        match action {
            WatchdogAction::Reset => power.reset(),
            WatchdogAction::PowerOff => power.end(ExitReason::Watchdog, String::new()),
            WatchdogAction::Pause => power.pause(),
        }
    })
}

impl Hardware {
    /// Adds the watchdog. To be added before what may take its slot.
    ///
    /// # Errors
    /// When the host is out of descriptors.
    pub fn add_watchdog(&mut self, on_expiry: OnExpiry) -> Result<(), Failure> {
        let kind = LaunchError::Internal;
        let memory_bus = &self.buses.memory;
        let watchdog = Watchdog::new(memory_bus, &self.surroundings.events, on_expiry)
            .map_err(Failure::doing(kind, "watchdog"))?;
        let address = self.slots.take(slots::WATCHDOG);
        let full = || Failure::new(kind, "watchdog: all PCI slots are taken");
        self.add_function(address.ok_or_else(full)?, watchdog)
    }
}
