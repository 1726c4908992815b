//! New guests from snapshots: templates.

use std::ops::ControlFlow;
use std::sync::Arc;

use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::snapshot::SnapshotClone;
use lodge_api::{Name, Problem};
use lodge_block::datastore::DatastoreError;
use lodge_store::Batch;

use super::{COPYING, Part, SnapshotRecord, files};
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking};
use crate::datastores;
use crate::disks::DiskRecord;
use crate::images::{datastore_problem, file_name};
use crate::operations::{OperationHandle, cancelled};
use crate::vms::{VmRecord, start_from};
use crate::{Caller, Manager};

/// What is to be made.
struct Plan {
    snapshot: SnapshotRecord,
    vm: VmRecord,
    disks: Vec<DiskRecord>,
    /// Go on from the snapshot's memory.
    warm: bool,
}

impl Manager {
    /// Makes a new guest of a snapshot, with copies of its disks and an identity of its own. The operation's target is
    /// `/v1/vms/NAME`.
    pub async fn snapshot_clone(
        &self,
        caller: &Caller,
        key: &str,
        clone: SnapshotClone,
    ) -> Result<Operation, Problem> {
        let plan = self.core.plan_clone(key, &clone)?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = plan.vm.target();
            caller.audit("snapshot_clone", &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            manager
                .core
                .start_operation(
                    &caller,
                    "snapshot_clone",
                    target,
                    true,
                    |handle| async move { core.make_clone(&asking, plan, &handle).await },
                )
                .await
        })
        .await
    }
}

impl Core {
    fn plan_clone(&self, key: &str, clone: &SnapshotClone) -> Result<Plan, Problem> {
        let now = self.snapshot();
        let snapshot = catalogue::find::<SnapshotRecord>(&now, key)?.value;
        catalogue::require_free::<VmRecord>(&now, &clone.name)?;
        let warm = snapshot.memory && !clone.cold;
        if warm && !snapshot.spec.nics.is_empty() {
            return Err(Problem::invalid(
                "/cold",
                "the guest in the snapshot's memory has network interfaces, whose addresses a second one would use too",
            )
            .with_hint("use `cold` to start from the disks, or take a snapshot of a guest without network interfaces"));
        }
        let mut spec = snapshot.spec.clone();
        spec.name = clone.name.clone();
        // Whoever wants snapshots of this one, too, says so.
        spec.snapshot_schedule = None;
        spec.backup_schedule = None;
        for nic in &mut spec.nics {
            nic.mac = None;
        }
        let mut disks = Vec::new();
        for (number, entry) in spec.disks.iter_mut().enumerate() {
            let name = disk_name(&clone.name, number)?;
            catalogue::require_free::<DiskRecord>(&now, &name)?;
            let file = files::name(snapshot.id, Part::Disk(number))?;
            let info = self.place_of(&snapshot, Part::Disk(number))?.info(&file);
            let size = info.map_err(|error| datastore_problem(&error))?.size;
            // There the copy is instant.
            let datastore = snapshot.datastore_of(number);
            disks.push(DiskRecord::new(name.clone(), size).on(datastore));
            entry.disk = name;
        }
        Ok(Plan {
            snapshot,
            vm: VmRecord::new(spec),
            disks,
            warm,
        })
    }

    async fn make_clone(
        self: &Arc<Self>,
        caller: &Caller,
        plan: Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let made = match self.copy_files(&plan, handle).await {
            Ok(()) => match handle.commit_to_finish() {
                Ok(()) => self.add_records(caller, &plan).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        if let Err(problem) = made {
            self.drop_files(&plan).await?;
            return Err(problem);
        }
        if plan.warm {
            start_from(self, plan.vm.id, plan.snapshot.id).await?;
        }
        Ok(())
    }

    async fn copy_files(&self, plan: &Plan, handle: &OperationHandle) -> Result<(), Problem> {
        let (id, vm, with_variables) = (plan.snapshot.id, plan.vm.id, plan.snapshot.variables);
        let mut targets = Vec::new();
        for disk in &plan.disks {
            targets.push((
                file_name(disk.id)?,
                self.datastores.folders(disk.datastore)?,
            ));
        }
        let (variables, saved) = (self.variables.clone(), self.saved.clone());
        let handle = handle.clone();
        blocking(move || {
            let failed = |error: DatastoreError| datastore_problem(&error);
            for (number, (name, on)) in targets.into_iter().enumerate() {
                let source = files::open(&on.saved, id, Part::Disk(number))?;
                on.disks
                    .clone_file(&source, &name, &mut |at| handle.copying(COPYING, at))
                    .map_err(failed)?;
            }
            if handle.is_cancelled() {
                return Err(cancelled());
            }
            if with_variables {
                let source = files::open(&saved, id, Part::Variables)?;
                variables
                    .clone_file(&source, &file_name(vm)?, &mut |_| ControlFlow::Continue(()))
                    .map_err(failed)?;
            }
            Ok(())
        })
        .await
    }

    async fn add_records(self: &Arc<Self>, caller: &Caller, plan: &Plan) -> Result<(), Problem> {
        let _changing = self.catalogue.lock().await;
        let now = self.snapshot();
        catalogue::require_free::<VmRecord>(&now, &plan.vm.spec.name)?;
        let mut batch = Batch::new();
        for disk in &plan.disks {
            datastores::require_known(&now, disk.datastore)?;
            catalogue::require_free::<DiskRecord>(&now, &disk.name)?;
            catalogue::insert(&mut batch, disk)?;
        }
        self.commit(batch).await?;
        let mut vm = plan.vm.clone();
        self.check_spec(&mut vm.spec, &self.snapshot(), None)?;
        self.add_vm(&vm).await?;
        for disk in &plan.disks {
            self.events
                .object(&caller.user, disk.target(), Change::Created);
        }
        self.events
            .object(&caller.user, vm.target(), Change::Created);
        Ok(())
    }

    /// Undoes what was made of a clone that failed.
    async fn drop_files(&self, plan: &Plan) -> Result<(), Problem> {
        let now = self.snapshot();
        let mut batch = Batch::new();
        for disk in &plan.disks {
            if let Some(found) = catalogue::find_optional::<DiskRecord>(&now, &disk.id.to_string())?
            {
                catalogue::remove(&mut batch, &found)?;
            }
        }
        self.commit(batch).await?;
        let on = |disk: &DiskRecord| Some((disk.id, self.datastores.folders(disk.datastore).ok()?));
        let files: Vec<_> = plan.disks.iter().filter_map(on).collect();
        let (variables, vm) = (self.variables.clone(), plan.vm.id);
        blocking(move || {
            for (id, on) in files {
                let _ = on.disks.remove_file(&file_name(id)?);
            }
            let _ = variables.remove_file(&file_name(vm)?);
            Ok(())
        })
        .await
    }
}

/// Name of a clone's disk.
fn disk_name(vm: &Name, number: usize) -> Result<Name, Problem> {
    format!("{vm}-disk{number}").parse().map_err(|error| {
        Problem::invalid(
            "/name",
            format!("the names of its disks would be wrong: {error}"),
        )
        .with_hint("choose a shorter name")
    })
}
