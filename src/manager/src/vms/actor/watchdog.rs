//! A guest whose watchdog has expired.

use jiff::Timestamp;
use lodge_api::event::EventBody;
use lodge_api::vm::{VmState, Watchdog};
use lodge_vmm_proto::WatchdogAction;

use super::Actor;
use crate::vms::watchdog;

impl Actor {
    /// Tells of it. What is done about it is the monitor's, and comes as any other change.
    pub(super) fn watchdog_expired(&mut self, action: WatchdogAction) {
        let action = watchdog::told(action);
        self.observed.send_modify(|observed| {
            observed.watchdog_expired_at = Some(Timestamp::now());
        });
        self.publish(|vm| EventBody::VmWatchdog { vm, action });
        // Just before it was held for a copy: it stays paused afterwards.
        if self.held.is_some() && action == Watchdog::Pause {
            self.set_state(VmState::Paused, None);
        }
    }
}
