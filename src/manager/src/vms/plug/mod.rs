//! Disks and network interfaces that come and go while a guest runs.
//!
//! Three must agree whatever fails, and whenever a manager is killed: the configuration in the store, the note in the run directory, and
//! the monitor. What arrives is noted first, then plugged in, then recorded in the configuration; a manager that finds it
//! noted and not recorded takes it out again, since nobody was told that it is there. What leaves is out of the machine first; whoever finds
//! it missing there takes it out of the configuration.

mod device;

use std::time::Duration;

use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::vm::{DiskBus, NicModel, Vm, VmAttach, VmDetach, VmSpec, VmState};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Snapshot};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

pub(crate) use self::device::Device;
use super::actor::Command;
use super::state::Observed;
use super::{VmRecord, command, just_deleted, spec_check};
use crate::catalogue::{self, Object as _};
use crate::core::Core;
use crate::operations::{OperationHandle, cancelled};
use crate::{Caller, IfMatch, Manager};

/// Seconds a guest has to let a device go unless told otherwise.
const TIMEOUT: u32 = 30;

/// How long a device that is out may take to leave the configuration.
const LATE: Duration = Duration::from_secs(10);

impl Manager {
    /// Adds a disk or a network interface to a guest, at once if it runs.
    ///
    /// # Errors
    /// `InvalidRequest` for what only comes to a guest that does not run.
    pub async fn vm_attach(
        &self,
        caller: &Caller,
        key: &str,
        attach: VmAttach,
    ) -> Result<Vm, Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<VmRecord>(&key, IfMatch::Any).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            let mut spec = old.value.spec.clone();
            add(&mut spec, attach)?;
            core.check_spec(&mut spec, snapshot, Some(old))
                .map_err(|problem| of_the_body(problem, &old.value.spec))?;
            let device = newest(&spec, &old.value.spec, snapshot)?;
            let observed = core.vms.observed(old.value.id);
            let comes_now = comes_now(&observed, &device)?;
            let handle = core.vms.handle(old.value.id).ok_or_else(just_deleted)?;
            if comes_now {
                let device = device.clone();
                command(&handle, |reply| Command::Attach { device, reply }).await?;
            }
            let new = VmRecord {
                spec,
                ..old.value.clone()
            };
            let recorded = core.exchange(Batch::new(), old, new).await;
            if comes_now {
                let recorded = recorded.is_ok();
                let settled = command(&handle, |reply| Command::Settle { recorded, reply });
                // The guest's task sees to it again.
                if let Err(problem) = settled.await {
                    tracing::warn!(vm = %old.value.spec.name, %problem, "a device that was added");
                }
            }
            let new = recorded?;
            core.make_known(&caller, "vm_attach", new.value.target(), Change::Changed);
            Ok(core.vm_of(&new))
        })
        .await
    }

    /// Removes a disk or a network interface from a guest, as soon as the guest lets it go if it runs. What can be checked is checked before
    /// this returns.
    ///
    /// # Errors
    /// `InvalidRequest` for what the guest does not have, or only leaves a guest that does not run. The operation fails with
    /// `GuestTimeout` when the guest does not let go; it then keeps the device.
    pub async fn vm_detach(
        &self,
        caller: &Caller,
        key: &str,
        detach: VmDetach,
    ) -> Result<Operation, Problem> {
        let core = &self.core;
        let record = catalogue::find::<VmRecord>(&core.snapshot(), key)?.value;
        let seconds = detach.timeout_s.unwrap_or(TIMEOUT);
        if !(1..=3600).contains(&seconds) {
            return Err(
                Problem::invalid("/timeout_s", format!("{seconds} is out of range"))
                    .with_hint("give 1 to 3600 seconds"),
            );
        }
        let observed = core.vms.observed(record.id);
        let device = Device::named(&detach, &record.spec, &observed, &core.snapshot())?;
        leaves_now(&observed, &device, detach.force)?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = record.target();
            caller.audit("vm_detach", &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            let wanted = Wanted {
                vm: record.id,
                device,
                timeout: Duration::from_secs(seconds.into()),
                force: detach.force,
            };
            manager
                .core
                .start_operation(&caller, "vm_detach", target, true, |handle| async move {
                    core.detach(&asking, wanted, &handle).await
                })
                .await
        })
        .await
    }
}

/// What is to leave which guest.
struct Wanted {
    vm: Uuid,
    device: Device,
    timeout: Duration,
    force: bool,
}

impl Core {
    async fn detach(
        &self,
        caller: &Caller,
        wanted: Wanted,
        operation: &OperationHandle,
    ) -> Result<(), Problem> {
        let Wanted {
            vm,
            device,
            timeout,
            force,
        } = wanted;
        if !leaves_now(&self.vms.observed(vm), &device, force)? {
            return self.forget_device(vm, &device, caller).await;
        }
        let handle = self.vms.handle(vm).ok_or_else(just_deleted)?;
        let asked = command(&handle, |reply| Command::Detach {
            device: device.clone(),
            force,
            caller: caller.clone(),
            reply,
        });
        tokio::pin!(asked);
        let problem = tokio::select! {
            outcome = &mut asked => return outcome,
            () = sleep(timeout) => not_let_go(&device, timeout),
            () = operation.cancelled() => cancelled(),
        };
        let key = device.key();
        match command(&handle, |reply| Command::Keep { key, reply }).await {
            Ok(()) => Err(problem),
            // In the last moment: it is out, and on its way out of the configuration. Or the guest has ended.
            Err(late) if late.code == ErrorCode::WrongState => {
                timeout_at(Instant::now() + LATE, asked)
                    .await
                    .unwrap_or(Err(problem))
            }
            Err(failed) => Err(failed),
        }
    }

    /// Takes a device that is out of the machine out of the configuration.
    pub(crate) async fn forget_device(
        &self,
        vm: Uuid,
        device: &Device,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let held = self.hold::<VmRecord>(&vm.to_string(), IfMatch::Any).await?;
        let mut new = held.old.value.clone();
        if !device.remove_from(&mut new.spec) {
            return Ok(());
        }
        let new = self.exchange(Batch::new(), &held.old, new).await?;
        self.make_known(caller, "vm_detach", new.value.target(), Change::Changed);
        Ok(())
    }
}

/// Adds the one device of a request.
fn add(spec: &mut VmSpec, attach: VmAttach) -> Result<(), Problem> {
    match (attach.disk, attach.nic) {
        (Some(disk), None) => spec.disks.push(disk),
        (None, Some(nic)) => spec.nics.push(nic),
        _ => return Err(one_of_both()),
    }
    Ok(())
}

fn one_of_both() -> Problem {
    Problem::invalid("/disk", "one device at a time comes or goes")
        .with_hint("give either `disk` or `nic`")
}

/// A problem of the new entry points at the request's body.
fn of_the_body(mut problem: Problem, before: &VmSpec) -> Problem {
    if let Some(pointer) = &problem.pointer {
        let disk = format!("/disks/{}", before.disks.len());
        let nic = format!("/nics/{}", before.nics.len());
        let moved = pointer
            .strip_prefix(&disk)
            .map(|rest| format!("/disk{rest}"))
            .or_else(|| pointer.strip_prefix(&nic).map(|rest| format!("/nic{rest}")))
            .or_else(|| (pointer == "/disks").then(|| "/disk".to_owned()))
            .or_else(|| (pointer == "/nics").then(|| "/nic".to_owned()));
        problem.pointer = moved.or(problem.pointer);
    }
    problem
}

/// The device that a checked configuration has more than the one before.
fn newest(spec: &VmSpec, before: &VmSpec, snapshot: &Snapshot) -> Result<Device, Problem> {
    match (&spec.disks[before.disks.len()..], &spec.nics[..]) {
        ([entry, ..], _) => Ok(Device::Disk {
            id: spec_check::disk(snapshot, &entry.disk, "/disk/disk")?.id,
            entry: entry.clone(),
        }),
        (_, [.., nic]) => Ok(Device::Nic(nic.clone())),
        _ => Err(one_of_both()),
    }
}

/// Whether a device is to be plugged into the guest, which runs without it.
fn comes_now(observed: &Observed, device: &Device) -> Result<bool, Problem> {
    let Some(launched) = launched(observed)? else {
        return Ok(false);
    };
    if device.is_in(launched) {
        return Ok(false);
    }
    require_virtio(device, "added to")?;
    Ok(true)
}

/// Whether a device is in the guest, which runs.
fn leaves_now(observed: &Observed, device: &Device, force: bool) -> Result<bool, Problem> {
    let Some(launched) = launched(observed)? else {
        return Ok(false);
    };
    if !device.is_in(launched) {
        return Ok(false);
    }
    require_virtio(device, "removed from")?;
    if observed.state == VmState::Paused && !force {
        return Err(
            Problem::new(ErrorCode::WrongState, "a paused guest lets nothing go")
                .with_hint("resume it first, or use `force`"),
        );
    }
    Ok(true)
}

/// What a guest runs with, if it runs.
fn launched(observed: &Observed) -> Result<Option<&VmSpec>, Problem> {
    match (observed.state.is_active(), &observed.launched) {
        (false, _) => Ok(None),
        (true, Some(launched)) => Ok(Some(launched)),
        (true, None) => Err(Problem::new(
            ErrorCode::WrongState,
            format!("the guest is {}", observed.state.as_str()),
        )
        .with_hint("wait until it runs")),
    }
}

fn require_virtio(device: &Device, how: &str) -> Result<(), Problem> {
    let refuse = |pointer: &str, detail: String| {
        Err(Problem::invalid(pointer, detail)
            .with_hint("stop the guest first, or use a virtio device"))
    };
    match device {
        Device::Disk { entry, .. } if entry.bus != DiskBus::Virtio => {
            let bus = match entry.bus {
                DiskBus::Sata => "SATA",
                DiskBus::Nvme => "NVMe",
                DiskBus::Virtio => "virtio",
            };
            refuse(
                "/disk",
                format!("a disk on {bus} cannot be {how} a guest that runs"),
            )
        }
        Device::Nic(nic) if nic.model != NicModel::Virtio => refuse(
            "/nic",
            format!("a network card of model e1000e cannot be {how} a guest that runs"),
        ),
        _ => Ok(()),
    }
}

fn not_let_go(device: &Device, timeout: Duration) -> Problem {
    Problem::new(
        ErrorCode::GuestTimeout,
        format!(
            "the guest did not let go of {device} within {} seconds, and keeps it",
            timeout.as_secs()
        ),
    )
    .with_hint("see that nothing in the guest uses it, give it more time, or use `force`")
}

/// A MAC address as configurations have it.
fn normal_mac(text: &str) -> Result<String, Problem> {
    let mac = spec_check::parse_mac(text).map_err(|detail| {
        Problem::invalid("/nic", detail).with_hint("write an address like 52:54:00:12:34:56")
    })?;
    Ok(spec_check::show_mac(mac))
}

fn no_such(pointer: &str, what: &str, name: &str) -> Problem {
    Problem::invalid(pointer, format!("the guest has no {what} {name}"))
        .with_hint("see the guest's configuration for those it has")
}

/// For messages.
fn quoted(name: &Name) -> String {
    format!("\"{name}\"")
}
