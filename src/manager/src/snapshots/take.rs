//! Taking a snapshot: one consistent point of disks and memory.

use std::fs::File;

use jiff::Timestamp;
use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::snapshot::SnapshotCreate;
use lodge_api::vm::VmState;
use lodge_api::{ErrorCode, Problem};
use lodge_block::NewFile;
use lodge_block::datastore::{Access, Datastore, DatastoreError};
use lodge_vmm_proto::{Answer, MAX_PIECE, RequestBody};
use uuid::Uuid;

use super::{COPYING, Part, SnapshotRecord, files};
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking, internal};
use crate::datastores;
use crate::disks::DiskRecord;
use crate::images::{datastore_problem, file_name};
use crate::operations::{OperationHandle, cancelled};
use crate::vms::{Control, DiskClaim, VmRecord, hold, spec_check};
use crate::{Caller, Manager};

/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 1024;

/// What is to be saved of which guest.
pub(super) struct Plan {
    pub(super) record: SnapshotRecord,
    /// Whether the guest has a monitor, by which it is held.
    runs: bool,
}

impl Manager {
    /// Takes a snapshot of a guest. The operation's target is `/v1/snapshots/NAME`.
    ///
    /// # Errors
    /// `WrongState` when memory is wanted of a guest that has none.
    pub async fn vm_snapshot(
        &self,
        caller: &Caller,
        key: &str,
        create: SnapshotCreate,
    ) -> Result<Operation, Problem> {
        let plan = self.core.plan_snapshot(key, create).await?;
        self.start_snapshot(caller, plan).await
    }

    /// Begins to take what was planned.
    pub(super) async fn start_snapshot(
        &self,
        caller: &Caller,
        plan: Plan,
    ) -> Result<Operation, Problem> {
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = plan.record.target();
            caller.audit("vm_snapshot", &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            manager
                .core
                .start_operation(&caller, "vm_snapshot", target, true, |handle| async move {
                    core.take_snapshot(&asking, plan, &handle).await
                })
                .await
        })
        .await
    }
}

impl Core {
    /// What a snapshot will consist of.
    pub(super) async fn plan_snapshot(
        &self,
        key: &str,
        create: SnapshotCreate,
    ) -> Result<Plan, Problem> {
        let snapshot = self.snapshot();
        catalogue::require_free::<SnapshotRecord>(&snapshot, &create.name)?;
        if create.description.chars().count() > MAX_DESCRIPTION {
            return Err(
                Problem::invalid("/description", "the description is too long")
                    .with_hint(format!("use at most {MAX_DESCRIPTION} characters")),
            );
        }
        let vm = catalogue::find::<VmRecord>(&snapshot, key)?.value;
        let observed = self.vms.observed(vm.id);
        let runs = matches!(observed.state, VmState::Running | VmState::Paused);
        if observed.state.is_active() && !runs {
            let detail = format!("the guest is {}", observed.state.as_str());
            return Err(Problem::new(ErrorCode::WrongState, detail)
                .with_hint("wait until it runs or is stopped"));
        }
        let memory = create.memory.unwrap_or(runs);
        if memory && !runs {
            return Err(Problem::new(
                ErrorCode::WrongState,
                "the guest is stopped: it has no memory",
            )
            .with_pointer("/memory")
            .with_hint("start it first, or leave memory out"));
        }
        // What runs, not what is wanted for the next start.
        let spec = match (runs, observed.launched) {
            (true, Some(launched)) => launched,
            _ => vm.spec.clone(),
        };
        let disks = if runs {
            observed.disks
        } else {
            let disks = spec.disks.iter().enumerate().map(|(number, entry)| {
                let pointer = format!("/disks/{number}/disk");
                Ok(spec_check::disk(&snapshot, &entry.disk, &pointer)?.id)
            });
            disks.collect::<Result<_, Problem>>()?
        };
        let record = SnapshotRecord {
            id: Uuid::now_v7(),
            name: create.name,
            description: create.description,
            vm: vm.spec.name,
            vm_id: vm.id,
            scheduled: false,
            kept_for: None,
            memory,
            spec,
            disks,
            datastores: Vec::new(),
            variables: false,
            created_at: Timestamp::now(),
        };
        Ok(Plan { record, runs })
    }

    async fn take_snapshot(
        &self,
        caller: &Caller,
        plan: Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let Plan { mut record, runs } = plan;
        let saved = match runs {
            true => self.save_running(&mut record, handle).await,
            false => self.save_stopped(&mut record, handle).await,
        };
        let made = match saved.and_then(|()| handle.commit_to_finish()) {
            Ok(()) => self.add_snapshot(&record).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = made {
            record.memory = true;
            record.variables = true;
            let (id, parts) = (record.id, self.parts_of(&record));
            blocking(move || {
                files::remove(id, &parts);
                Ok(())
            })
            .await?;
            return Err(problem);
        }
        self.events
            .object(&caller.user, record.target(), Change::Created);
        Ok(())
    }

    async fn add_snapshot(&self, record: &SnapshotRecord) -> Result<(), Problem> {
        let _changing = self.catalogue.lock().await;
        let now = self.snapshot();
        for datastore in &record.datastores {
            datastores::require_known(&now, *datastore)?;
        }
        self.add(record).await.map(drop)
    }

    async fn save_stopped(
        &self,
        record: &mut SnapshotRecord,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        // Nobody may start it meanwhile with these disks.
        let disks: Vec<_> = record.disks.iter().map(|&disk| (disk, true)).collect();
        let _claim = DiskClaim::new(&self.vms.claims, record.id, &disks)
            .map_err(|_| in_use("a running guest writes to a disk of this one"))?;
        self.copy_disks(record, handle).await
    }

    /// The guest is held while its memory and disks are copied. Should this manager die, its monitor lets it go.
    async fn save_running(
        &self,
        record: &mut SnapshotRecord,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let held = hold(self, record.vm_id).await?;
        // Devices come and go; from here on none does.
        let observed = self.vms.observed(record.vm_id);
        if let Some(launched) = observed.launched {
            record.spec = launched;
            record.disks = observed.disks;
        }
        let saved = self.save_held(held.control(), record, handle).await;
        let saved = match (saved, held.release().await) {
            (Ok(files), Ok(())) => Ok(files),
            (Err(problem), _) | (Ok(_), Err(problem)) => Err(problem),
        };
        let files = saved?;
        let id = record.id;
        blocking(move || {
            for (part, file) in files {
                file.commit(&files::name(id, part)?)
                    .map_err(|error| datastore_problem(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn save_held(
        &self,
        control: &Control,
        record: &mut SnapshotRecord,
        handle: &OperationHandle,
    ) -> Result<Vec<(Part, NewFile)>, Problem> {
        let mut files = Vec::new();
        if record.memory {
            let size = record.spec.memory.bytes();
            files.extend(self.save_memory(control, size, handle).await?);
        }
        self.copy_disks(record, handle).await?;
        Ok(files)
    }

    /// Saves state and memory, of that size in bytes, of a guest that is held.
    pub(super) async fn save_memory(
        &self,
        control: &Control,
        size: u64,
        handle: &OperationHandle,
    ) -> Result<[(Part, NewFile); 2], Problem> {
        let state = self.new_saved_file(None)?;
        control
            .ask(RequestBody::SaveState, Some(duplicate(&state)?.into()))
            .await?;
        let memory = self.new_saved_file(Some(size))?;
        let mut offset = 0;
        while offset < size {
            if handle.is_cancelled() {
                return Err(cancelled());
            }
            handle.progress("saving memory", offset, size);
            let length = MAX_PIECE.min(size - offset);
            let body = RequestBody::SaveMemory { offset, length };
            let answer = control.ask(body, Some(duplicate(&memory)?.into())).await?;
            if !matches!(answer, Answer::Saved { .. }) {
                return Err(internal("the guest's monitor gave an unexpected answer"));
            }
            offset += length;
        }
        Ok([(Part::State, state), (Part::Memory, memory)])
    }

    fn new_saved_file(&self, size: Option<u64>) -> Result<NewFile, Problem> {
        let file = self
            .saved
            .new_file()
            .map_err(|error| datastore_problem(&error))?;
        if let Some(size) = size {
            file.file()
                .set_len(size)
                .map_err(|error| internal(format!("a file for the memory: {error}")))?;
        }
        Ok(file)
    }

    /// Copies disks and UEFI variables, which nobody writes to at the moment.
    async fn copy_disks(
        &self,
        record: &mut SnapshotRecord,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let (id, vm) = (record.id, record.vm_id);
        let now = self.snapshot();
        let mut disks = Vec::new();
        record.datastores.clear();
        for disk in &record.disks {
            let datastore = catalogue::find::<DiskRecord>(&now, &disk.to_string())?
                .value
                .datastore;
            record.datastores.push(datastore);
            disks.push((file_name(*disk)?, self.datastores.folders(datastore)?));
        }
        let (variables, saved) = (self.variables.clone(), self.saved.clone());
        let handle = handle.clone();
        record.variables = blocking(move || {
            let failed = |error: DatastoreError| datastore_problem(&error);
            let copy = |source: File, part: Part, to: &Datastore| {
                let name = files::name(id, part)?;
                to.clone_file(&source, &name, &mut |at| handle.copying(COPYING, at))
                    .map(drop)
                    .map_err(failed)
            };
            for (number, (name, on)) in disks.into_iter().enumerate() {
                let source = on.disks.open_file(&name, Access::default());
                copy(source.map_err(failed)?, Part::Disk(number), &on.saved)?;
            }
            match variables.open_file(&file_name(vm)?, Access::default()) {
                Ok(source) => copy(source, Part::Variables, &saved).map(|()| true),
                Err(DatastoreError::NotFound { .. }) => Ok(false),
                Err(error) => Err(failed(error)),
            }
        })
        .await?;
        Ok(())
    }
}

fn duplicate(file: &NewFile) -> Result<File, Problem> {
    file.file()
        .try_clone()
        .map_err(|error| internal(format!("a descriptor: {error}")))
}

fn in_use(detail: &str) -> Problem {
    Problem::new(ErrorCode::InUse, detail).with_hint("stop that guest, or take a snapshot of it")
}
