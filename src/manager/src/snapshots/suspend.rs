//! Guests that go on after a restart of the host where they were before it.
//!
//! A guest ends before what is saved of it is recorded, and the record is gone before it goes on: whatever happens between, the memory of a guest
//! never meets disks that are newer.

use std::sync::Arc;

use lodge_api::ErrorCode;
use lodge_api::Problem;
use lodge_api::vm::{VmSpec, VmState};
use lodge_store::{Batch, Precondition, Record, Snapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Part, files};
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking};
use crate::images::datastore_problem;
use crate::operations::OperationHandle;
use crate::vms::{VmRecord, hold, kill, start, start_from};

const PARTS: [Part; 2] = [Part::State, Part::Memory];

/// A guest that was ended and goes on at the next start of the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SuspendedRecord {
    vm_id: Uuid,
    /// Owner of the files with its state and memory.
    files: Uuid,
}

impl Record for SuspendedRecord {
    const TABLE: &'static str = "suspended";
    const SCHEMA: u32 = 1;
}

/// Whether a file in the datastore of snapshots belongs to a suspended guest.
pub(super) fn owns(snapshot: &Snapshot, owner: Uuid) -> bool {
    let suspended = snapshot.list::<SuspendedRecord>();
    suspended
        .iter()
        .any(|(_, record)| record.value.files == owner)
}

/// Whether a guest that was started so is what is wanted now, but for what its machine does not show.
fn is_same_machine(launched: &VmSpec, wanted: &VmSpec) -> bool {
    let launched = VmSpec {
        description: wanted.description.clone(),
        snapshot_schedule: wanted.snapshot_schedule.clone(),
        autostart: wanted.autostart,
        on_crash: wanted.on_crash,
        ..launched.clone()
    };
    launched == *wanted
}

impl Core {
    /// Saves the guests that run and ends them. What cannot be saved runs on, until the host goes down.
    pub(crate) async fn suspend_guests(&self, handle: &OperationHandle) {
        for vm in catalogue::list::<VmRecord>(&self.snapshot()) {
            let vm = vm.value;
            if self.vms.observed(vm.id).state != VmState::Running {
                continue;
            }
            let name = &vm.spec.name;
            match self.suspend(&vm, handle).await {
                Ok(()) => handle.log(format!("{name} is saved, and goes on after the restart")),
                Err(problem) => {
                    tracing::warn!(vm = %name, %problem, "a guest cannot be saved");
                    handle.log(format!(
                        "{name} cannot be saved and is powered off: {problem}"
                    ));
                }
            }
        }
    }

    async fn suspend(&self, vm: &VmRecord, handle: &OperationHandle) -> Result<(), Problem> {
        let size = vm.spec.memory.bytes();
        self.require_space(&self.saved, size)?;
        let held = hold(self, vm.id).await?;
        let launched = self.vms.observed(vm.id).launched;
        let saved = if launched.is_some_and(|launched| is_same_machine(&launched, &vm.spec)) {
            self.save_memory(held.control(), size, handle).await
        } else {
            Err(Problem::new(
                ErrorCode::WrongState,
                "its configuration was changed since it was started",
            ))
        };
        let saved = match saved {
            Ok(saved) => saved,
            Err(problem) => {
                held.release().await?;
                return Err(problem);
            }
        };
        kill(self, vm.id).await?;
        drop(held);
        let record = SuspendedRecord {
            vm_id: vm.id,
            files: Uuid::now_v7(),
        };
        let id = record.files;
        blocking(move || {
            for (part, file) in saved {
                file.commit(&files::name(id, part)?)
                    .map_err(|error| datastore_problem(&error))?;
            }
            Ok(())
        })
        .await?;
        let mut batch = Batch::new();
        batch
            .put(vm.id.to_string(), &record, Precondition::Any)
            .map_err(|error| catalogue::record_problem(&error))?;
        self.commit(batch).await?;
        Ok(())
    }

    /// Lets suspended guests go on. One that cannot boots instead.
    pub(crate) async fn guests_go_on(self: &Arc<Self>) {
        let rest = self.resume_guests().await;
        self.boot_instead(rest).await;
    }

    /// Lets suspended guests go on, and tells which cannot.
    pub(crate) async fn resume_guests(self: &Arc<Self>) -> Vec<Uuid> {
        let mut rest = Vec::new();
        // They wait for a start of the host at which guests can run.
        if !self.host.kvm.usable() {
            return rest;
        }
        let now = self.snapshot();
        let suspended = now.list::<SuspendedRecord>();
        let vms: Vec<VmRecord> = suspended
            .iter()
            .filter_map(|(_, record)| {
                let vm = record.value.vm_id.to_string();
                Some(catalogue::find(&now, &vm).ok()?.value)
            })
            .collect();
        self.wait_for_datastores_of(&vms).await;
        for (key, record) in suspended {
            let SuspendedRecord { vm_id, files } = record.value;
            let mut batch = Batch::new();
            let deleted = batch
                .delete::<SuspendedRecord>(&key, Precondition::Any)
                .map_err(|error| catalogue::record_problem(&error));
            let gone = match deleted {
                Ok(_) => self.commit(batch).await,
                Err(problem) => Err(problem),
            };
            // What is still recorded would go on once more, with disks that are newer.
            if let Err(problem) = gone {
                tracing::error!(%problem, "a suspended guest does not go on");
                continue;
            }
            if !self.vms.observed(vm_id).state.is_active() && !self.resume(vm_id, files).await {
                rest.push(vm_id);
            }
            let parts = PARTS.map(|part| (self.saved.clone(), part));
            // A guest that goes on has its memory open.
            let _ = blocking(move || {
                files::remove(files, &parts);
                Ok(())
            })
            .await;
        }
        rest
    }

    /// Boots guests that could not go on.
    pub(crate) async fn boot_instead(&self, guests: Vec<Uuid>) {
        for vm in guests {
            if let Err(problem) = start(self, vm).await {
                let name = self.name_of(vm);
                tracing::error!(vm = name, %problem, "a guest could not be started");
            }
        }
    }

    async fn resume(&self, vm: Uuid, files: Uuid) -> bool {
        let Err(problem) = start_from(self, vm, files).await else {
            return true;
        };
        let name = self.name_of(vm);
        self.tell_problem(format!(
            "guest {name} cannot go on after the restart, and boots: {problem}"
        ));
        false
    }

    fn name_of(&self, vm: Uuid) -> String {
        let found = catalogue::find::<VmRecord>(&self.snapshot(), &vm.to_string());
        found.map_or_else(|_| vm.to_string(), |vm| vm.value.name().to_string())
    }
}
