//! Disks that cannot go on, in the words of the API and of the guest's monitor.

use lodge_api::Problem;
use lodge_api::vm::{DiskProblem, OnDiskError, VmAction, VmDiskError, VmState};
use lodge_vmm_proto::DiskStuck;
use uuid::Uuid;

use super::actor::Command;
use super::launch::serial;
use super::run_dir::LaunchNote;
use super::{VmRecord, command};
use crate::catalogue;
use crate::core::Core;
use crate::disks::DiskRecord;

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

/// Has guests go on that are paused because a datastore did not answer, which it does again.
pub(crate) async fn go_on_with_datastore(core: &Core, datastore: Uuid) {
    for vm in catalogue::list::<VmRecord>(&core.snapshot()) {
        let vm = vm.value;
        if !waits_for(core, &vm, datastore).unwrap_or(false) {
            continue;
        }
        let Some(handle) = core.vms.handle(vm.id) else {
            continue;
        };
        let action = VmAction::Resume;
        match command(&handle, |reply| Command::Do { action, reply }).await {
            Ok(()) => {
                tracing::info!(vm = %vm.spec.name, "its datastore is there again: it goes on");
            }
            Err(problem) => tracing::warn!(vm = %vm.spec.name, %problem, "it does not go on"),
        }
    }
}

fn waits_for(core: &Core, vm: &VmRecord, datastore: Uuid) -> Result<bool, Problem> {
    let observed = core.vms.observed(vm.id);
    let Some(error) = observed.disk_error else {
        return Ok(false);
    };
    // Disks of running guests are not renamed.
    let disk = catalogue::find::<DiskRecord>(&core.snapshot(), error.disk.as_str())?;
    Ok(observed.state == VmState::Paused
        && error.problem == DiskProblem::IoError
        && disk.value.datastore == Some(datastore))
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
