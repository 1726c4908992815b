//! What a guest's monitor tells of itself.

use jiff::Timestamp;
use lodge_api::event::EventBody;
use lodge_vmm_proto::GuestEvent;

use super::Actor;
use crate::catalogue;

impl Actor {
    /// Deals with the notices that have arrived.
    pub(super) fn hear(&mut self) {
        while let Some(event) = self
            .notices
            .as_mut()
            .and_then(|notices| notices.try_recv().ok())
        {
            self.noticed(event);
        }
    }

    pub(super) fn noticed(&mut self, event: GuestEvent) {
        match event {
            GuestEvent::Reset => {
                self.observed.send_modify(|observed| {
                    observed.resets += 1;
                    observed.panicked_at = None;
                });
                self.publish(|vm| EventBody::VmReset { vm });
            }
            GuestEvent::Panicked { crash_kernel } => {
                self.observed.send_modify(|observed| {
                    observed.panicked_at.get_or_insert_with(Timestamp::now);
                });
                self.publish(|vm| EventBody::VmPanicked { vm, crash_kernel });
            }
            GuestEvent::Watchdog { action } => self.watchdog_expired(action),
            GuestEvent::DiskStuck(stuck) => self.disk_stuck(&stuck),
            GuestEvent::Detached { device } => self.detached(&device),
            // That it is held is no state of the guest.
            GuestEvent::State { .. } if self.held.is_some() => {}
            GuestEvent::State { state } => self.follow(state),
            GuestEvent::DeviceError { device, message } => {
                let (vm, clean) = (self.name(), catalogue::shown(&device));
                let message: String = message.chars().take(300).collect();
                tracing::warn!(log_source = format!("vmm/{vm}"), "{clean}: {message}");
                self.core.events.publish(
                    None,
                    EventBody::System {
                        message: format!("guest {vm}: {clean}: {message}"),
                    },
                );
            }
        }
    }
}
