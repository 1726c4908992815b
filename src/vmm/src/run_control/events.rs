//! What happens in the guest, in its order, for those who subscribed.

use lodge_vmm_proto::GuestEvent;

use super::RunControl;
use crate::saved;

impl RunControl {
    /// Events since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<GuestEvent> {
        self.hear_devices();
        std::mem::take(&mut self.events)
    }

    /// Adds an event to those that came before it.
    pub(super) fn happened(&mut self, event: GuestEvent) {
        self.hear_devices();
        if event == GuestEvent::Reset {
            self.panicked_at_ms = None;
        }
        self.events.push(event);
    }

    /// Disks are about to do again what they held back, or to forget it.
    pub(super) fn unstick(&mut self) {
        self.hear_devices();
        self.stuck = None;
    }

    fn hear_devices(&mut self) {
        for event in self.machine.complaints().take() {
            let now = saved::unix_time() / 1_000_000;
            match event {
                GuestEvent::Panicked { .. } => {
                    self.panicked_at_ms.get_or_insert(now);
                }
                GuestEvent::Watchdog { .. } => self.watchdog_expired_at_ms = Some(now),
                GuestEvent::DiskStuck(ref disk) => {
                    self.stuck.get_or_insert_with(|| disk.clone());
                }
                _ => {}
            }
            self.events.push(event);
        }
    }
}
