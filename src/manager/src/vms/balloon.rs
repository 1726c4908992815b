//! How much of its memory a running guest keeps.
//!
//! People think of the memory a guest has; its monitor, of the balloon that takes some of it away.

use lodge_api::vm::{Vm, VmAction, VmBalloon, VmBalloonTarget, VmGuestMemory};
use lodge_api::{Problem, Size};
use lodge_vmm_proto::{BALLOON_LEAVES, GuestStatus, MemoryStatistics};

use super::actor::Command;
use super::state::{Observed, check_action};
use super::{VmRecord, command};
use crate::catalogue::{self, Object as _};
use crate::{Caller, Manager};

/// Pages of a balloon, in bytes.
const PAGE: u64 = 4096;

const _: () = assert!(VmBalloonTarget::LEAST.bytes() >= BALLOON_LEAVES);

/// What a monitor says about its guest's memory. The guest is behind most of it: any number may come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryReport {
    /// Size the balloon should have.
    balloon_target: u64,
    /// Size it has.
    balloon_actual: u64,
    statistics: Option<MemoryStatistics>,
}

impl MemoryReport {
    pub(crate) fn new(status: &GuestStatus) -> Self {
        Self {
            balloon_target: status.balloon_target_bytes,
            balloon_actual: status.balloon_actual_bytes,
            statistics: status.memory,
        }
    }
}

impl Observed {
    /// The memory that a running guest keeps.
    pub(crate) fn balloon(&self) -> Option<VmBalloon> {
        let report = self.memory.as_ref()?;
        let memory = self.launched.as_ref()?.memory.bytes();
        Some(VmBalloon {
            target: Size(memory.saturating_sub(report.balloon_target)),
            actual: Size(memory.saturating_sub(report.balloon_actual)),
        })
    }

    /// A running guest's memory in its own eyes.
    pub(crate) fn guest_memory(&self) -> Option<VmGuestMemory> {
        let statistics = self.memory.as_ref()?.statistics?;
        Some(VmGuestMemory {
            total: statistics.total.map(Size),
            free: statistics.free.map(Size),
            available: statistics.available.map(Size),
            caches: statistics.caches.map(Size),
            swap_in: statistics.swap_in.map(Size),
            swap_out: statistics.swap_out.map(Size),
            major_faults: statistics.major_faults,
        })
    }

    /// A wish was passed on.
    pub(crate) fn set_balloon_target(&mut self, bytes: u64) {
        if let Some(report) = &mut self.memory {
            report.balloon_target = bytes;
        }
    }
}

/// Size in bytes of the balloon that leaves a guest with `memory` just `target`.
///
/// # Errors
/// When `target` is out of range.
pub(super) fn size(memory: Size, target: Size) -> Result<u64, Problem> {
    let invalid =
        |detail: String, hint: String| Err(Problem::invalid("/target", detail).with_hint(hint));
    // A guest that was given less keeps what it has.
    let least = VmBalloonTarget::LEAST.min(memory);
    if target < least {
        return invalid(
            format!("{target} are too little for a guest"),
            format!("give at least {least}"),
        );
    }
    let Some(bytes) = memory.bytes().checked_sub(target.bytes()) else {
        return invalid(
            format!("the guest was given {memory} only"),
            format!("give at most {memory}, or change its configuration"),
        );
    };
    if !target.bytes().is_multiple_of(PAGE) {
        return invalid(
            format!("{} bytes are no multiple of 4 KiB", target.bytes()),
            "give whole MiB".to_owned(),
        );
    }
    Ok(bytes)
}

impl Manager {
    /// Asks a running guest to keep so much of its memory. It may take its time, or not do it at
    /// all; the wish is not remembered when the guest ends.
    ///
    /// # Errors
    /// `WrongState` when it does not run.
    pub async fn vm_balloon(
        &self,
        caller: &Caller,
        key: &str,
        VmBalloonTarget { target }: VmBalloonTarget,
    ) -> Result<Vm, Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let record = catalogue::find::<VmRecord>(&core.snapshot(), &key)?;
            let vm = &record.value;
            let handle = core.vms.handle(vm.id);
            let handle = handle.ok_or_else(|| Problem::not_found("guest", &vm.spec.name))?;
            let (state, memory) = {
                let observed = handle.observed.borrow();
                let launched = observed.launched.as_ref().unwrap_or(&vm.spec);
                (observed.state, launched.memory)
            };
            size(memory, target)?;
            // What a reset needs is needed here: a monitor that is up.
            check_action(VmAction::Reset, state, false, &vm.spec.name)?;
            command(&handle, |reply| Command::SetBalloon { target, reply }).await?;
            caller.audit("vm_balloon", &vm.target());
            Ok(core.vm_of(&record))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_the_guest_keeps() {
        let memory = Size::mib(256);
        assert_eq!(size(memory, memory), Ok(0));
        assert_eq!(size(memory, Size::mib(96)), Ok(160 << 20));
        assert_eq!(size(memory, Size::mib(64)), Ok(192 << 20));
        for (target, says) in [
            (Size::mib(63), "64 MiB"),
            (Size(0), "64 MiB"),
            (Size(Size::mib(256).bytes() + 1), "256 MiB"),
            (Size(u64::MAX), "256 MiB"),
            (Size(Size::mib(100).bytes() + 1), "whole MiB"),
        ] {
            let problem = size(memory, target).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("/target"));
            let hint = problem.hint.unwrap();
            assert!(hint.contains(says), "{hint}");
        }
        // A small guest can only be asked to keep all it has.
        let small = Size::mib(32);
        assert_eq!(size(small, small), Ok(0));
        assert!(size(small, Size::mib(16)).is_err());
    }
}
