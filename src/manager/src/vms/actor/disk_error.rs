//! A guest that cannot go on with one of its disks.

use lodge_api::event::EventBody;
use lodge_api::vm::{VmDiskError, VmState};
use lodge_vmm_proto::{DiskStuck, GuestStatus};

use super::Actor;
use crate::vms::disk_error;
use crate::vms::run_dir::LaunchNote;

/// The disk that a guest is paused for which was just started or found.
pub(super) fn of(status: &GuestStatus, note: &LaunchNote) -> Option<VmDiskError> {
    disk_error::told(status.stuck.as_ref()?, note)
}

impl Actor {
    /// Tells of it. That the guest is paused is the monitor's, and comes as any other change.
    pub(super) fn disk_stuck(&mut self, stuck: &DiskStuck) {
        let guest = self.guest.as_ref();
        let Some(error) = guest.and_then(|guest| disk_error::told(stuck, &guest.note)) else {
            return;
        };
        // Each queue of each disk tells it: the first is enough.
        if self.observed.borrow().disk_error.is_some() {
            return;
        }
        self.observed.send_modify(|observed| {
            observed.disk_error = Some(error.clone());
        });
        self.publish(|vm| EventBody::VmDiskError { vm, error });
        // Just before it was held for a copy: it stays paused afterwards.
        if self.held.is_some() {
            self.set_state(VmState::Paused, self.pause_reason(VmState::Paused));
        }
    }

    /// Why the guest is in this state, if that is for a disk.
    pub(super) fn pause_reason(&self, state: VmState) -> Option<String> {
        if state != VmState::Paused {
            return None;
        }
        let observed = self.observed.borrow();
        observed.disk_error.as_ref().map(disk_error::reason)
    }

    /// The guest goes on, or begins anew.
    pub(super) fn forget_disk_error(&self) {
        self.observed
            .send_modify(|observed| observed.disk_error = None);
    }
}
