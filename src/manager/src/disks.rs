//! Disks: raw files guests write to.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use lodge_api::disk::{Disk, DiskCreate, DiskPatch};
use lodge_api::event::Change;
use lodge_api::image::ImageKind;
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};
use lodge_api::vm::DiskBus;
use lodge_api::{ErrorCode, Name, Problem, Size};
use lodge_block::datastore::{Access, Datastore};
use lodge_store::{Batch, Record, Snapshot, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::core::{Core, blocking};
use crate::datastores::{self, Folders};
use crate::filter::{self, Field};
use crate::images::{ImageRecord, datastore_problem, file_name};
use crate::networks::in_use;
use crate::operations::OperationHandle;
use crate::vms::{self, VmRecord};
use crate::{Caller, IfMatch, Manager};

/// Sizes are multiples of that.
const UNIT: u64 = 1 << 20;

/// Largest disk.
const LARGEST: u64 = 64 << 40;

const FIELDS: &[Field] = &[("id", "/id"), ("name", "/name"), ("size", "/size")];

/// A disk as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DiskRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    size: Size,
    /// Nothing for the host's own data storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datastore: Option<Uuid>,
    created_at: Timestamp,
}

impl DiskRecord {
    /// A new disk of `size` bytes.
    pub(crate) fn new(name: Name, size: u64) -> Self {
        Self {
            id: Uuid::now_v7(),
            name,
            size: Size(size),
            datastore: None,
            created_at: Timestamp::now(),
        }
    }

    /// The same disk on that datastore.
    pub(crate) fn on(self, datastore: Option<Uuid>) -> Self {
        Self { datastore, ..self }
    }

    /// The disk of a file that no record names.
    pub(crate) fn recovered(id: Uuid, name: Name, size: u64) -> Self {
        Self {
            id,
            ..Self::new(name, size)
        }
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.bytes()
    }

    /// The same disk with that many bytes.
    pub(crate) fn with_size(&self, size: u64) -> Self {
        Self {
            size: Size(size),
            ..self.clone()
        }
    }
}

impl Record for DiskRecord {
    const TABLE: &'static str = "disks";
    const SCHEMA: u32 = 1;
}

impl Object for DiskRecord {
    const KIND: &'static str = "disk";
    const PATH: &'static str = "disks";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

pub(crate) fn check_size(size: Size) -> Result<(), Problem> {
    let problem = |detail: &str| {
        Problem::invalid("/size", detail)
            .with_hint("give a multiple of 1 MiB up to 64 TiB, like \"20GiB\"")
    };
    match size.bytes() {
        0 => Err(problem("a disk cannot be empty")),
        bytes if !bytes.is_multiple_of(UNIT) => Err(problem("not a multiple of 1 MiB")),
        bytes if bytes > LARGEST => Err(problem("larger than 64 TiB")),
        _ => Ok(()),
    }
}

/// Guests whose configuration names the disk, or that run with it.
fn users(core: &Core, name: &Name, id: Uuid, vms: &[Versioned<VmRecord>]) -> Vec<Name> {
    let running = core.vms.users_of_disk(id);
    vms.iter()
        .map(|vm| &vm.value)
        .filter(|vm| {
            vm.spec.disks.iter().any(|disk| disk.disk == *name) || running.contains(&vm.id)
        })
        .map(|vm| vm.spec.name.clone())
        .collect()
}

/// What a new disk is made from, and where.
struct Plan {
    record: DiskRecord,
    image: Option<ImageRecord>,
    folders: Folders,
}

impl Core {
    /// A disk as the API shows it. Its file is asked, which may take its time.
    pub(crate) async fn show_disk(
        self: &Arc<Self>,
        record: Versioned<DiskRecord>,
    ) -> Result<Disk, Problem> {
        let core = self.clone();
        blocking(move || core.disk_of(&record, &catalogue::list(&core.snapshot()))).await
    }

    fn disk_of(
        &self,
        record: &Versioned<DiskRecord>,
        vms: &[Versioned<VmRecord>],
    ) -> Result<Disk, Problem> {
        let disk = &record.value;
        let name = file_name(disk.id)?;
        let folders = self.datastores.folders(disk.datastore);
        let info = folders.ok().and_then(|on| on.disks.info(&name).ok());
        Ok(Disk {
            id: disk.id,
            name: disk.name.clone(),
            size: disk.size,
            allocated: Size(info.map_or(0, |info| info.allocated)),
            datastore: datastores::name_of(&self.snapshot(), disk.datastore)?,
            used_by: users(self, &disk.name, disk.id, vms),
            created_at: disk.created_at,
            revision: record.revision,
        })
    }

    fn plan_disk(&self, create: DiskCreate) -> Result<Plan, Problem> {
        let snapshot = self.snapshot();
        catalogue::require_free::<DiskRecord>(&snapshot, &create.name)?;
        let image = match &create.image {
            None => None,
            Some(name) => Some(disk_image(
                catalogue::find_optional::<ImageRecord>(&snapshot, name.as_str())?,
                name,
            )?),
        };
        let least = image.as_ref().map_or(0, |image| image.size.bytes());
        let size = match (create.size, &image) {
            (Some(size), _) => size,
            (None, Some(_)) => Size(least.next_multiple_of(UNIT)),
            (None, None) => {
                return Err(Problem::invalid("/size", "the size is missing")
                    .with_hint("give a size, or an image to copy"));
            }
        };
        check_size(size)?;
        if size.bytes() < least {
            return Err(Problem::invalid(
                "/size",
                format!("smaller than the image, which has {}", Size(least)),
            )
            .with_hint("give at least the image's size, or leave the size out"));
        }
        let datastore = datastores::require(&snapshot, create.datastore.as_ref(), "/datastore")?;
        let folders = self.datastores.folders(datastore);
        Ok(Plan {
            record: DiskRecord::new(create.name, size.bytes()).on(datastore),
            image,
            folders: folders.map_err(|problem| problem.with_pointer("/datastore"))?,
        })
    }

    /// Makes the file of a new disk; nothing stays of one that fails.
    async fn make_disk_file(&self, plan: &Plan, handle: &OperationHandle) -> Result<(), Problem> {
        let (id, size) = (plan.record.id, plan.record.size.bytes());
        let image = plan.image.as_ref().map(|image| image.id);
        let (images, disks) = (self.images.clone(), plan.folders.disks.clone());
        let handle = handle.clone();
        blocking(move || {
            let name = file_name(id)?;
            let failed = |error| datastore_problem(&error);
            let Some(image) = image else {
                return disks.create_disk(&name, size).map_err(failed);
            };
            let source = images
                .open_file(&file_name(image)?, Access::default())
                .map_err(failed)?;
            disks
                .clone_file(&source, &name, &mut |at| handle.copying("copying", at))
                .map_err(failed)?;
            disks.grow_disk(&name, size).map_err(|error| {
                // Recorded nowhere, it would be removed at the next start at the latest.
                let _ = disks.remove_file(&name);
                failed(error)
            })
        })
        .await
    }

    async fn remove_disk_file(&self, disks: Arc<Datastore>, id: Uuid) {
        let removed = blocking(move || {
            disks
                .remove_file(&file_name(id)?)
                .map_err(|error| datastore_problem(&error))
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, %id, "the file of a deleted disk stays");
        }
    }

    async fn create_disk(
        &self,
        caller: &Caller,
        plan: Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        self.make_disk_file(&plan, handle).await?;
        let record = plan.record;
        let made = match handle.commit_to_finish() {
            Ok(()) => self.add_disk(&record).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = made {
            self.remove_disk_file(plan.folders.disks, record.id).await;
            return Err(problem);
        }
        self.events
            .object(&caller.user, record.target(), Change::Created);
        Ok(())
    }

    async fn add_disk(&self, record: &DiskRecord) -> Result<(), Problem> {
        let _changing = self.catalogue.lock().await;
        datastores::require_known(&self.snapshot(), record.datastore)?;
        self.add(record).await.map(drop)
    }

    /// The guests that run with a disk; each can be told that it has grown.
    fn who_hears_of_growth(
        &self,
        running: &HashSet<Uuid>,
        disk: &DiskRecord,
    ) -> Result<Vec<Uuid>, Problem> {
        for holder in running {
            let launched = self.vms.observed(*holder).launched;
            let disks = launched.map(|spec| spec.disks).unwrap_or_default();
            let Some(entry) = disks.iter().find(|entry| entry.disk == disk.name) else {
                // Nobody who runs: it is being copied, or its guest is just starting.
                return Err(in_use_by_running(&disk.name, "grown"));
            };
            if entry.bus == DiskBus::Sata {
                return Err(in_use_by_running(&disk.name, "grown").with_hint(
                    "stop the guest first: a disk on SATA does not grow while it runs",
                ));
            }
        }
        Ok(running.iter().copied().collect())
    }

    /// Tells guests of a disk that has grown. One that cannot be told finds out when it is reset or started.
    async fn tell_growth(&self, disk: Uuid, running: &[Uuid]) {
        for vm in running {
            if let Err(problem) = vms::disk_grew(self, *vm, disk).await {
                tracing::warn!(%vm, %disk, %problem, "a guest is not told that its disk has grown");
            }
        }
    }

    /// Records sizes of a datastore's disks whose files were made longer by a manager that died before it could.
    pub(crate) async fn record_growth(
        &self,
        datastore: Option<Uuid>,
        disks: &Arc<Datastore>,
    ) -> Result<(), Problem> {
        let (disks, snapshot) = (disks.clone(), self.snapshot());
        let batch = blocking(move || grown(datastore, &disks, &snapshot)).await?;
        if batch.is_empty() {
            return Ok(());
        }
        self.commit(batch).await.map(drop)
    }
}

/// The batch that records which disks of a datastore have grown.
fn grown(
    datastore: Option<Uuid>,
    disks: &Datastore,
    snapshot: &Snapshot,
) -> Result<Batch, Problem> {
    let mut batch = Batch::new();
    for disk in catalogue::list::<DiskRecord>(snapshot) {
        if disk.value.datastore != datastore {
            continue;
        }
        let info = disks.info(&file_name(disk.value.id)?);
        // What has no file is found out when it is used.
        let Ok(info) = info else { continue };
        if info.size > disk.value.size.bytes() {
            tracing::info!(disk = %disk.value.name, size = info.size, "a disk has grown");
            catalogue::replace(&mut batch, &disk, &disk.value.with_size(info.size))?;
        }
    }
    Ok(batch)
}

pub(crate) fn in_use_by_running(name: &Name, what: &str) -> Problem {
    let detail =
        format!("a running guest uses the disk \"{name}\", which cannot be {what} meanwhile");
    Problem::new(ErrorCode::InUse, detail).with_hint("stop the guest first")
}

fn disk_image(found: Option<Versioned<ImageRecord>>, name: &Name) -> Result<ImageRecord, Problem> {
    let Some(image) = found else {
        return Err(
            Problem::invalid("/image", format!("there is no image \"{name}\""))
                .with_hint("upload it first, as an image of kind `disk`"),
        );
    };
    if image.value.kind != ImageKind::Disk {
        return Err(
            Problem::invalid("/image", format!("the image \"{name}\" is no disk image"))
                .with_hint("choose an image of kind `disk`"),
        );
    }
    Ok(image.value)
}

impl Manager {
    /// By name. Filter fields: `id name size`.
    pub async fn disk_list(&self, params: ListParams) -> Result<Page<Disk>, Problem> {
        let core = self.core.clone();
        blocking(move || {
            let snapshot = core.snapshot();
            let vms = catalogue::list::<VmRecord>(&snapshot);
            let disks = catalogue::list::<DiskRecord>(&snapshot);
            let views = disks.iter().map(|disk| core.disk_of(disk, &vms));
            let views = views.collect::<Result<Vec<_>, _>>()?;
            filter::page(views, &params, FIELDS, |disk| disk.name.to_string())
        })
        .await
    }

    /// One disk, by name or id.
    pub async fn disk_view(&self, key: &str) -> Result<Disk, Problem> {
        let disk = catalogue::find::<DiskRecord>(&self.core.snapshot(), key)?;
        self.core.show_disk(disk).await
    }

    /// Makes a disk, empty or a copy of an image. What can be checked is checked before this returns;
    /// the operation does the rest. Its target is `/v1/disks/NAME`.
    pub async fn disk_create(
        &self,
        caller: &Caller,
        create: DiskCreate,
    ) -> Result<Operation, Problem> {
        let plan = self.core.plan_disk(create)?;
        if let Some(image) = &plan.image {
            let allocated = self
                .core
                .images
                .info(&file_name(image.id)?)
                .map_err(|error| datastore_problem(&error))?
                .allocated;
            // Where extents are shared less is needed; nobody minds so close to the end.
            let (core, disks) = (self.core.clone(), plan.folders.disks.clone());
            blocking(move || core.require_space(&disks, allocated)).await?;
        }
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = plan.record.target();
            caller.audit("disk_create", &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            manager
                .core
                .start_operation(&caller, "disk_create", target, true, |handle| async move {
                    core.create_disk(&asking, plan, &handle).await
                })
                .await
        })
        .await
    }

    /// Renames a disk, or grows it, at once for guests that run with it.
    pub async fn disk_patch(
        &self,
        caller: &Caller,
        key: &str,
        patch: DiskPatch,
        if_match: IfMatch,
    ) -> Result<Disk, Problem> {
        if let Some(size) = patch.size {
            check_size(size)?;
        }
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<DiskRecord>(&key, if_match).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            let running = core.vms.users_of_disk(old.value.id);
            let renamed = patch.name.as_ref();
            let renamed = renamed.is_some_and(|name| *name != old.value.name);
            if renamed && !running.is_empty() {
                return Err(in_use_by_running(&old.value.name, "renamed"));
            }
            let running = core.who_hears_of_growth(&running, &old.value)?;
            let mut new = old.value.clone();
            let mut batch = Batch::new();
            if let Some(name) = patch.name.filter(|name| *name != old.value.name) {
                catalogue::require_free::<DiskRecord>(snapshot, &name)?;
                rename_in_guests(
                    &mut batch,
                    &catalogue::list(snapshot),
                    &old.value.name,
                    &name,
                )?;
                new.name = name;
            }
            if let Some(size) = patch.size {
                if size < old.value.size {
                    return Err(Problem::invalid(
                        "/size",
                        format!("smaller than the disk, which has {}", old.value.size),
                    )
                    .with_hint("a disk can only grow"));
                }
                new.size = size;
                // The file first: a file larger than recorded is put right by repeating the call.
                let disks = core.datastores.folders(new.datastore)?.disks;
                let file = file_name(new.id)?;
                blocking(move || {
                    disks
                        .grow_disk(&file, size.bytes())
                        .map_err(|error| datastore_problem(&error))
                })
                .await?;
            }
            let new = core.exchange(batch, old, new).await?;
            core.make_known(&caller, "disk_change", new.value.target(), Change::Changed);
            let grown = new.value.size != old.value.size;
            // Guests may take their time.
            drop(held);
            if grown {
                core.tell_growth(new.value.id, &running).await;
            }
            core.show_disk(new).await
        })
        .await
    }

    /// Deletes a disk no guest names.
    pub async fn disk_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<DiskRecord>(&key, if_match).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            let disk = &old.value;
            let used_by = users(core, &disk.name, disk.id, &catalogue::list(snapshot));
            if !used_by.is_empty() {
                return Err(in_use("disk", &disk.name, &used_by));
            }
            let folders = core.datastores.folders(disk.datastore);
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, old)?;
            core.commit(batch).await?;
            // On one that is missing it is removed when that is there again.
            if let Ok(folders) = folders {
                core.remove_disk_file(folders.disks, disk.id).await;
            }
            core.make_known(&caller, "disk_delete", disk.target(), Change::Deleted);
            Ok(())
        })
        .await
    }
}

/// Guests name disks by their names: a renamed disk is renamed in them.
fn rename_in_guests(
    batch: &mut Batch,
    vms: &[Versioned<VmRecord>],
    from: &Name,
    to: &Name,
) -> Result<(), Problem> {
    for vm in vms {
        let mut new = vm.value.clone();
        let mut renamed = false;
        for disk in &mut new.spec.disks {
            if disk.disk == *from {
                disk.disk = to.clone();
                renamed = true;
            }
        }
        if renamed {
            catalogue::replace(batch, vm, &new)?;
        }
    }
    Ok(())
}
