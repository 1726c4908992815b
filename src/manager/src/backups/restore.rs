//! Guests out of backups.
//!
//! The whole of each disk is made into a raw one, and what changed later is written to it, in order, before any record of it is there.

use std::sync::Arc;

use lodge_api::backup::BackupRestore;
use lodge_api::backup_catalog::{Catalog, DiskFile, Entry};
use lodge_api::event::Change;
use lodge_api::image::{DiskFormat, ImageKind};
use lodge_api::nvram::{VmVariable, VmVariableSet};
use lodge_api::operation::Operation;
use lodge_api::vm::VmSpec;
use lodge_api::{ErrorCode, Name, Problem, Size};
use lodge_block::datastore::Datastore;
use lodge_block::format::Format;
use lodge_store::Batch;
use uuid::Uuid;

use super::catalog;
use super::make::or_cancelled;
use super::place::Folder;
use super::record::{self, BackupRecord};
use super::target::TargetRecord;
use crate::catalogue::{self, Object};
use crate::convert::{to_raw, with_changes};
use crate::core::{blocking, internal};
use crate::datastores;
use crate::disks::{DiskRecord, check_size};
use crate::images::{ImageRecord, datastore_problem, file_name};
use crate::networks::NetworkRecord;
use crate::operations::OperationHandle;
use crate::upload::{Expected, Received, Receiver};
use crate::vms::VmRecord;
use crate::{Caller, Manager};

/// Largest files of a configuration and of variables that are read, in bytes.
const MOST_JSON: usize = 8 << 20;

/// A guest to be.
pub(super) struct Plan {
    vm: VmRecord,
    /// Its disks, in the order of its configuration.
    disks: Vec<Wanted>,
    variables: Vec<VmVariable>,
    datastore: Option<Uuid>,
    on: Arc<Datastore>,
}

/// A disk to be, and the files it comes from, from the whole one on.
struct Wanted {
    id: Uuid,
    name: Name,
    files: Vec<DiskFile>,
}

impl Manager {
    /// Makes a guest of a backup, stopped. What it is to be is looked at before anything comes, and what cannot be finished is taken back. The
    /// operation's target is `/v1/vms/NAME`.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` while the guest or its disks are there. What is wrong with the backup is the operation's.
    pub async fn backup_restore(
        &self,
        caller: &Caller,
        key: &str,
        restore: BackupRestore,
    ) -> Result<Operation, Problem> {
        let snapshot = self.core.snapshot();
        let backup = record::find(&snapshot, key)?.value;
        let name = restore.name.as_ref().unwrap_or(&backup.vm);
        catalogue::require_free::<VmRecord>(&snapshot, name).map_err(another_name)?;
        datastores::require(&snapshot, restore.datastore.as_ref(), "/datastore")?;
        let busy = self.core.backups.reading(backup.target, backup.vm_id)?;
        let target = catalogue::target::<VmRecord>(name);
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            caller.audit("backup_restore", &target);
            let (working, asking) = (manager.clone(), caller.clone());
            let work = move |handle: OperationHandle| async move {
                let _busy = busy;
                let folder = or_cancelled(&handle, working.folder_with(&backup)).await?;
                let plan = working.plan_restore(&folder, &backup, &restore);
                let plan = or_cancelled(&handle, plan).await?;
                working.restore(&asking, &folder, &plan, &handle).await
            };
            manager
                .core
                .start_operation(&caller, "backup_restore", target, true, work)
                .await
        })
        .await
    }

    /// The folder that a backup is in.
    pub(super) async fn folder_with(&self, backup: &BackupRecord) -> Result<Folder, Problem> {
        let snapshot = self.core.snapshot();
        let target = catalogue::find::<TargetRecord>(&snapshot, &backup.target.to_string())?;
        self.core.place(&target.value).await?.folder(&backup.folder)
    }

    /// Finds out what would fail at the end.
    pub(super) async fn plan_restore(
        &self,
        folder: &Folder,
        backup: &BackupRecord,
        restore: &BackupRestore,
    ) -> Result<Plan, Problem> {
        let (catalog, entry) = entry(folder, backup).await?;
        let mut spec: VmSpec = folder.read_json(&entry.configuration, MOST_JSON).await?;
        let variables = match &entry.variables {
            Some(file) => folder.read_json(file, MOST_JSON).await?,
            None => Vec::new(),
        };
        let mut disks = Vec::new();
        for disk in &spec.disks {
            let files = catalog.chain(&entry, &disk.disk).map_err(damaged)?;
            disks.push(Wanted {
                id: Uuid::now_v7(),
                name: disk.disk.clone(),
                files: files.into_iter().cloned().collect(),
            });
        }
        let another = restore.name.as_ref().filter(|name| **name != spec.name);
        if let Some(name) = another {
            make_another(&mut spec, &mut disks, name)?;
        }
        let snapshot = self.core.snapshot();
        require_possible(&snapshot, &mut spec)?;
        let mut vm = VmRecord::new(spec);
        let of_it = catalogue::find_optional::<VmRecord>(&snapshot, &backup.vm_id.to_string())?;
        // The guest that it was: the same for its system, and for the backups to come.
        if another.is_none() && of_it.is_none() {
            vm.id = backup.vm_id;
        }
        let datastore = restore.datastore.as_ref();
        let datastore = datastores::require(&snapshot, datastore, "/datastore")?;
        let on = self.core.datastores.folders(datastore)?.disks;
        Ok(Plan {
            vm,
            disks,
            variables,
            datastore,
            on,
        })
    }

    pub(super) async fn restore(
        &self,
        caller: &Caller,
        folder: &Folder,
        plan: &Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let making = async {
            let sizes = or_cancelled(handle, self.make_disks(folder, plan, handle)).await?;
            handle.commit_to_finish()?;
            self.add_restored(caller, plan, &sizes).await
        };
        self.finish_restore(caller, plan, making.await).await
    }

    /// The same of a guest that goes again, whatever becomes of it: it can be cancelled to the end.
    pub(super) async fn restore_uncommitted(
        &self,
        caller: &Caller,
        folder: &Folder,
        plan: &Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let making = async {
            let sizes = self.make_disks(folder, plan, handle).await?;
            self.add_restored(caller, plan, &sizes).await
        };
        self.finish_restore(caller, plan, making.await).await
    }

    async fn finish_restore(
        &self,
        caller: &Caller,
        plan: &Plan,
        made: Result<(), Problem>,
    ) -> Result<(), Problem> {
        if let Err(problem) = made {
            self.take_back(plan).await?;
            return Err(problem);
        }
        self.set_variables(caller, plan).await
    }

    async fn set_variables(&self, caller: &Caller, plan: &Plan) -> Result<(), Problem> {
        // Else firmware would look for the system where it is on sticks only.
        for variable in &plan.variables {
            let VmVariable { info, data } = variable;
            let set = VmVariableSet {
                data: data.clone(),
                attributes: Some(info.attributes),
            };
            let name = format!("{}-{}", info.name, info.guid);
            let vm = plan.vm.id.to_string();
            self.variable_set(caller, &vm, &name, set).await?;
        }
        Ok(())
    }

    async fn make_disks(
        &self,
        folder: &Folder,
        plan: &Plan,
        handle: &OperationHandle,
    ) -> Result<Vec<u64>, Problem> {
        let mut sizes = Vec::new();
        for disk in &plan.disks {
            sizes.push(self.make_disk(folder, plan, disk, handle).await?);
        }
        Ok(sizes)
    }

    /// Makes the file of a disk, without a record yet.
    async fn make_disk(
        &self,
        folder: &Folder,
        plan: &Plan,
        disk: &Wanted,
        handle: &OperationHandle,
    ) -> Result<u64, Problem> {
        let Some((whole, changes)) = disk.files.split_first() else {
            return Err(internal("a disk without files"));
        };
        let on = &plan.on;
        let expected = Expected::Image(ImageKind::Disk, Some(DiskFormat::Qcow2));
        let came = self.bring(folder, on, whole, expected, handle).await?;
        let raw = to_raw(on.clone(), came.file, Format::Qcow2, handle.clone()).await?;
        let (id, mut size) = (disk.id, raw.size);
        put(raw.file, id).await?;
        for change in changes {
            let came = self
                .bring(folder, on, change, Expected::Changes, handle)
                .await?;
            let changed = with_changes(on.clone(), came.file, file_name(id)?, handle.clone());
            let (new, now) = changed.await?;
            size = now;
            put(new, id).await?;
        }
        check_size(Size(size))
            .map_err(|problem| Problem::new(ErrorCode::InvalidContent, problem.detail))?;
        Ok(size)
    }

    /// Brings a file here, and compares it with its checksum.
    async fn bring(
        &self,
        folder: &Folder,
        on: &Arc<Datastore>,
        file: &DiskFile,
        expected: Expected,
        handle: &OperationHandle,
    ) -> Result<Received, Problem> {
        handle.log(format!("{}: {}", file.file, Size(file.bytes)));
        let incoming = folder.open(&file.file).await?;
        self.require_room_for(on, Some(incoming.length))?;
        let receiver = Receiver::start(on.clone(), expected);
        let length = Some(incoming.length);
        let received = self
            .receive(receiver, length, incoming.pieces, handle)
            .await?;
        let wanted = file.sha256.as_ref();
        if wanted.is_some_and(|wanted| *wanted != received.sha256) {
            let detail = format!("{} is not what was written to the target", file.file);
            return Err(Problem::new(ErrorCode::ChecksumMismatch, detail)
                .with_hint("restore an earlier backup; `lodge backup verify` finds good ones"));
        }
        Ok(received)
    }

    async fn add_restored(
        &self,
        caller: &Caller,
        plan: &Plan,
        sizes: &[u64],
    ) -> Result<(), Problem> {
        let core = &self.core;
        let _changing = core.catalogue.lock().await;
        let now = core.snapshot();
        catalogue::require_free::<VmRecord>(&now, plan.vm.name())?;
        datastores::require_known(&now, plan.datastore)?;
        let mut batch = Batch::new();
        let mut disks = Vec::new();
        for (disk, size) in plan.disks.iter().zip(sizes) {
            catalogue::require_free::<DiskRecord>(&now, &disk.name)?;
            let record = DiskRecord::recovered(disk.id, disk.name.clone(), *size);
            let record = record.on(plan.datastore);
            catalogue::insert(&mut batch, &record)?;
            disks.push(record);
        }
        if !batch.is_empty() {
            core.commit(batch).await?;
        }
        let mut vm = plan.vm.clone();
        core.check_spec(&mut vm.spec, &core.snapshot(), None)?;
        core.add_vm(&vm).await?;
        for disk in &disks {
            core.events
                .object(&caller.user, disk.target(), Change::Created);
        }
        core.events
            .object(&caller.user, vm.target(), Change::Created);
        Ok(())
    }

    /// Undoes what was made of a guest that could not be finished.
    pub(super) async fn take_back(&self, plan: &Plan) -> Result<(), Problem> {
        let now = self.core.snapshot();
        let mut batch = Batch::new();
        for disk in &plan.disks {
            let found = catalogue::find_optional::<DiskRecord>(&now, &disk.id.to_string())?;
            if let Some(found) = found {
                catalogue::remove(&mut batch, &found)?;
            }
        }
        if !batch.is_empty() {
            self.core.commit(batch).await?;
        }
        let (on, ids) = (plan.on.clone(), plan.disks.iter().map(|disk| disk.id));
        let ids: Vec<Uuid> = ids.collect();
        blocking(move || {
            for id in ids {
                // Those that are not there have not been made yet.
                let _ = on.remove_file(&file_name(id)?);
            }
            Ok(())
        })
        .await
    }
}

impl Plan {
    /// What the guest will be.
    pub(super) fn spec(&mut self) -> &mut VmSpec {
        &mut self.vm.spec
    }

    /// Its disks.
    pub(super) fn disks(&self) -> impl Iterator<Item = Uuid> {
        self.disks.iter().map(|disk| disk.id)
    }

    /// Its id.
    pub(super) fn vm(&self) -> Uuid {
        self.vm.id
    }
}

/// A backup in the list of its folder.
pub(super) async fn entry(
    folder: &Folder,
    backup: &BackupRecord,
) -> Result<(Catalog, Entry), Problem> {
    let catalog = catalog::read(folder).await?;
    let catalog = catalog.unwrap_or_else(|| Catalog::of(backup.vm_id));
    let entry = catalog.backup(Some(backup.number)).map_err(|there| {
        let detail = format!("the target does not have the backup any more: {there}");
        Problem::new(ErrorCode::NotFound, detail).with_hint("delete it from the list")
    })?;
    let entry = entry.clone();
    Ok((catalog, entry))
}

pub(super) fn damaged(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidContent, detail)
        .with_hint("the list on the target was changed by other means; restore another backup")
}

/// Gives the file of a disk its name, in place of the one there is.
async fn put(file: lodge_block::NewFile, id: Uuid) -> Result<(), Problem> {
    blocking(move || {
        let name = file_name(id)?;
        file.replace(&name)
            .map_err(|error| datastore_problem(&error))
    })
    .await
}

/// Makes it one that may be beside the one that it was.
fn make_another(spec: &mut VmSpec, disks: &mut [Wanted], name: &Name) -> Result<(), Problem> {
    spec.name = name.clone();
    spec.snapshot_schedule = None;
    spec.backup_schedule = None;
    for nic in &mut spec.nics {
        nic.mac = None;
    }
    for (number, (entry, disk)) in spec.disks.iter_mut().zip(disks).enumerate() {
        let made = format!("{name}-disk{number}").parse::<Name>();
        let made = made.map_err(|error| {
            let detail = format!("the names of its disks would be wrong: {error}");
            Problem::invalid("/name", detail).with_hint("choose a shorter name")
        })?;
        entry.disk = made.clone();
        disk.name = made;
    }
    Ok(())
}

/// Refuses a guest that could not be added in the end.
fn require_possible(snapshot: &lodge_store::Snapshot, spec: &mut VmSpec) -> Result<(), Problem> {
    catalogue::require_free::<VmRecord>(snapshot, &spec.name).map_err(another_name)?;
    for entry in &spec.disks {
        catalogue::require_free::<DiskRecord>(snapshot, &entry.disk).map_err(another_name)?;
    }
    for nic in &spec.nics {
        require::<NetworkRecord>(snapshot, &nic.network)?;
    }
    let discs = spec.cdroms.iter().filter_map(|drive| drive.image.as_ref());
    let files = [&spec.boot.kernel, &spec.boot.initrd].into_iter().flatten();
    for image in files.chain(discs) {
        require::<ImageRecord>(snapshot, image)?;
    }
    // On another host its target may be called otherwise.
    let schedule = spec.backup_schedule.as_ref();
    if schedule.is_some_and(|schedule| super::require_target(schedule, snapshot).is_err()) {
        spec.backup_schedule = None;
    }
    Ok(())
}

fn require<O: Object>(snapshot: &lodge_store::Snapshot, name: &Name) -> Result<(), Problem> {
    match catalogue::find_optional::<O>(snapshot, name.as_str())? {
        Some(_) => Ok(()),
        None => {
            let detail = format!(
                "the guest needs the {} \"{name}\", which is not here",
                O::KIND
            );
            Err(Problem::new(ErrorCode::WrongState, detail).with_hint("make it first"))
        }
    }
}

fn another_name(problem: Problem) -> Problem {
    problem.with_hint("give the guest another name, or delete what has this one")
}
