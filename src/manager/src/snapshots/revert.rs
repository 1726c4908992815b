//! Going back: a guest's disks and configuration become what they were.

use std::ops::ControlFlow;

use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::snapshot::VmRevert;
use lodge_api::{ErrorCode, Problem};
use lodge_block::datastore::DatastoreError;
use lodge_store::{Batch, Versioned};
use uuid::Uuid;

use super::{COPYING, Part, SnapshotRecord, files};
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking};
use crate::disks::DiskRecord;
use crate::images::{datastore_problem, file_name};
use crate::operations::OperationHandle;
use crate::vms::{DiskClaim, VmRecord, start_from};
use crate::{Caller, IfMatch, Manager};

impl Manager {
    /// Takes a stopped guest back to a snapshot of it, which stays. One with memory goes on from there at once.
    ///
    /// # Errors
    /// `WrongState` while it runs.
    pub async fn vm_revert(
        &self,
        caller: &Caller,
        key: &str,
        revert: VmRevert,
    ) -> Result<Operation, Problem> {
        let now = self.core.snapshot();
        let vm = catalogue::find::<VmRecord>(&now, key)?.value;
        let snapshot = catalogue::find::<SnapshotRecord>(&now, &revert.snapshot)
            .map_err(|problem| problem.with_pointer("/snapshot"))?
            .value;
        if snapshot.vm_id != vm.id {
            let detail = format!(
                "\"{}\" is a snapshot of another guest, \"{}\"",
                snapshot.name, snapshot.vm
            );
            return Err(Problem::invalid("/snapshot", detail)
                .with_hint("make a new guest of it with POST /v1/snapshots/{snapshot}:clone"));
        }
        require_stopped(&self.core, &vm)?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = vm.target();
            caller.audit("vm_revert", &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            manager
                .core
                .start_operation(&caller, "vm_revert", target, false, |handle| async move {
                    core.revert(&asking, &vm, &snapshot, &handle).await
                })
                .await
        })
        .await
    }
}

impl Core {
    async fn revert(
        &self,
        caller: &Caller,
        vm: &VmRecord,
        snapshot: &SnapshotRecord,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        {
            let disks: Vec<_> = snapshot.disks.iter().map(|&disk| (disk, false)).collect();
            // Nobody may start with these disks meanwhile.
            let _claim =
                DiskClaim::new(&self.vms.claims, Uuid::now_v7(), &disks).map_err(|_| {
                    Problem::new(ErrorCode::InUse, "a running guest uses a disk of this one")
                        .with_hint("stop it first")
                })?;
            let records = self.disks_of(snapshot)?;
            self.put_files_back(vm.id, snapshot, handle).await?;
            self.put_records_back(caller, vm.id, snapshot, records)
                .await?;
        }
        if snapshot.memory {
            start_from(self, vm.id, snapshot.id).await?;
        }
        Ok(())
    }

    /// The disks as they are called now.
    fn disks_of(&self, snapshot: &SnapshotRecord) -> Result<Vec<Versioned<DiskRecord>>, Problem> {
        let now = self.snapshot();
        let find = |(id, entry): (&Uuid, &lodge_api::vm::VmDisk)| {
            catalogue::find_optional::<DiskRecord>(&now, &id.to_string())?.ok_or_else(|| {
                let detail = format!("the disk \"{}\" of the snapshot was deleted", entry.disk);
                Problem::new(ErrorCode::WrongState, detail)
                    .with_hint("make a new guest of the snapshot, which has copies of all disks")
            })
        };
        let disks = snapshot.disks.iter().zip(&snapshot.spec.disks);
        disks.map(find).collect()
    }

    /// Each file is the old or the new one at any moment. Repeated, it comes to the same.
    async fn put_files_back(
        &self,
        vm: Uuid,
        snapshot: &SnapshotRecord,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let (id, variables_saved) = (snapshot.id, snapshot.variables);
        let mut targets = Vec::new();
        for (number, disk) in snapshot.disks.iter().enumerate() {
            let from = self.place_of(snapshot, Part::Disk(number))?;
            targets.push((from, file_name(*disk)?, self.folders_of_disk(*disk)?.disks));
        }
        let (variables, saved) = (self.variables.clone(), self.saved.clone());
        let handle = handle.clone();
        blocking(move || {
            let failed = |error: DatastoreError| datastore_problem(&error);
            for (number, (from, name, to)) in targets.into_iter().enumerate() {
                let source = files::open(&from, id, Part::Disk(number))?;
                to.replace_file(&source, &name, &mut |progress| {
                    handle.progress(COPYING, progress.position, progress.size);
                    ControlFlow::Continue(())
                })
                .map_err(failed)?;
            }
            let name = file_name(vm)?;
            if variables_saved {
                let source = files::open(&saved, id, Part::Variables)?;
                return variables
                    .replace_file(&source, &name, &mut |_| ControlFlow::Continue(()))
                    .map_err(failed);
            }
            match variables.remove_file(&name) {
                Ok(()) | Err(DatastoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    async fn put_records_back(
        &self,
        caller: &Caller,
        vm: Uuid,
        snapshot: &SnapshotRecord,
        disks: Vec<Versioned<DiskRecord>>,
    ) -> Result<(), Problem> {
        let held = self.hold::<VmRecord>(&vm.to_string(), IfMatch::Any).await?;
        let mut batch = Batch::new();
        let mut spec = snapshot.spec.clone();
        let now = &held.old.value.spec;
        spec.name = now.name.clone();
        // Else going back would end, or begin, what is done against having to.
        spec.snapshot_schedule = now.snapshot_schedule.clone();
        spec.backup_schedule = now.backup_schedule.clone();
        for (number, disk) in disks.iter().enumerate() {
            spec.disks[number].disk = disk.value.name.clone();
            let part = files::name(snapshot.id, Part::Disk(number))?;
            let info = self.place_of(snapshot, Part::Disk(number))?.info(&part);
            let size = info.map_err(|error| datastore_problem(&error))?.size;
            catalogue::replace(&mut batch, disk, &disk.value.with_size(size))?;
        }
        let new = VmRecord {
            spec,
            ..held.old.value.clone()
        };
        let new = self.exchange(batch, &held.old, new).await?;
        self.make_known(caller, "vm_revert", new.value.target(), Change::Changed);
        Ok(())
    }
}

fn require_stopped(core: &Core, vm: &VmRecord) -> Result<(), Problem> {
    let state = core.vms.observed(vm.id).state;
    if !state.is_active() {
        return Ok(());
    }
    let detail = format!("the guest \"{}\" is {}", vm.spec.name, state.as_str());
    Err(Problem::new(ErrorCode::WrongState, detail)
        .with_hint("stop or kill it first: what it is doing now would be lost"))
}
