//! Disks that cannot go on, in the words of the API and of the guest's monitor.

use lodge_api::vm::{DiskProblem, OnDiskError, VmDiskError};
use lodge_vmm_proto::DiskStuck;

use super::launch::serial;
use super::run_dir::LaunchNote;

/// What the monitor is told.
pub(crate) fn configured(on_error: OnDiskError) -> lodge_vmm_proto::OnDiskError {
    match on_error {
        OnDiskError::Pause => lodge_vmm_proto::OnDiskError::Pause,
        OnDiskError::Report => lodge_vmm_proto::OnDiskError::Report,
    }
}

/// What the monitor of a guest says; nothing of disks the guest does not have.
pub(crate) fn told(stuck: &DiskStuck, note: &LaunchNote) -> Option<VmDiskError> {
    let mut disks = note.disks.iter().zip(&note.spec.disks);
    let (_, entry) = disks.find(|(id, _)| serial(**id) == stuck.serial)?;
    Some(VmDiskError {
        disk: entry.disk.clone(),
        problem: match stuck.problem {
            lodge_vmm_proto::DiskProblem::NoSpace => DiskProblem::NoSpace,
            lodge_vmm_proto::DiskProblem::IoError => DiskProblem::IoError,
        },
        message: stuck.message.chars().take(300).collect(),
    })
}

/// Why the guest is paused, and what to do about it.
pub(crate) fn reason(error: &VmDiskError) -> String {
    let VmDiskError { disk, message, .. } = error;
    match error.problem {
        DiskProblem::NoSpace => {
            format!("no space is left for its disk \"{disk}\": free some, then resume it")
        }
        DiskProblem::IoError => format!(
            "its disk \"{disk}\" failed ({message}): mend that, then resume it; or let it deal with that itself: on_error=report"
        ),
    }
}
