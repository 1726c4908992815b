//! Disks that move from one datastore to another.

use std::sync::Arc;

use lodge_api::disk::DiskMove;
use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::{ErrorCode, Problem};
use lodge_block::datastore::Access;
use lodge_store::Batch;
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::core::{Core, blocking};
use crate::datastores::{self, Folders};
use crate::disks::{DiskRecord, in_use_by_running};
use crate::images::{datastore_problem, file_name};
use crate::operations::OperationHandle;
use crate::vms::DiskClaim;
use crate::{Caller, IfMatch, Manager};

/// A disk that nobody else uses until it has been moved.
struct Plan {
    disk: DiskRecord,
    from: Folders,
    to: Folders,
    datastore: Option<Uuid>,
    _claim: DiskClaim,
}

impl Manager {
    /// Moves a disk that no running guest uses. Snapshots of it stay where they are. The operation's target is `/v1/disks/NAME`.
    ///
    /// # Errors
    /// `InUse`, `NoSpace`; `WrongState` where one of the datastores is missing, or the disk is there already.
    pub async fn disk_move(
        &self,
        caller: &Caller,
        key: &str,
        wanted: DiskMove,
    ) -> Result<Operation, Problem> {
        self.core.require_changeable()?;
        let (core, key) = (self.core.clone(), key.to_owned());
        let plan = blocking(move || core.plan_move(&key, &wanted)).await?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = plan.disk.target();
            caller.audit("disk_move", &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            let work = move |handle| async move { core.move_disk(&asking, plan, &handle).await };
            manager
                .core
                .start_operation(&caller, "disk_move", target, true, work)
                .await
        })
        .await
    }
}

impl Core {
    fn plan_move(&self, key: &str, wanted: &DiskMove) -> Result<Plan, Problem> {
        let snapshot = self.snapshot();
        let disk = catalogue::find::<DiskRecord>(&snapshot, key)?.value;
        let datastore = datastores::require(&snapshot, Some(&wanted.datastore), "/datastore")?;
        if datastore == disk.datastore {
            let detail = format!(
                "the disk \"{}\" is on the datastore \"{}\" already",
                disk.name, wanted.datastore
            );
            return Err(Problem::new(ErrorCode::WrongState, detail));
        }
        let claim = DiskClaim::new(&self.vms.claims, Uuid::now_v7(), &[(disk.id, false)])
            .map_err(|_| in_use_by_running(&disk.name, "moved"))?;
        let from = self.datastores.folders(disk.datastore)?;
        let to = self.datastores.folders(datastore);
        let to = to.map_err(|problem| problem.with_pointer("/datastore"))?;
        let info = from.disks.info(&file_name(disk.id)?);
        let allocated = info.map_err(|error| datastore_problem(&error))?.allocated;
        self.require_space(&to.disks, allocated)?;
        Ok(Plan {
            disk,
            from,
            to,
            datastore,
            _claim: claim,
        })
    }

    /// The file is in both places until the record says where it is. Whatever is left elsewhere is removed when that datastore is opened.
    async fn move_disk(
        self: &Arc<Self>,
        caller: &Caller,
        plan: Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let (from, to, copying) = (
            plan.from.disks.clone(),
            plan.to.disks.clone(),
            handle.clone(),
        );
        let name = file_name(plan.disk.id)?;
        let file = name.clone();
        blocking(move || {
            let failed = |error| datastore_problem(&error);
            let source = from.open_file(&file, Access::default()).map_err(failed)?;
            to.clone_file(&source, &file, &mut |at| copying.copying("copying", at))
                .map(drop)
                .map_err(failed)
        })
        .await?;
        let recorded = match handle.commit_to_finish() {
            Ok(()) => self.record_move(caller, &plan).await,
            Err(problem) => Err(problem),
        };
        let surplus = match recorded {
            Ok(()) => plan.from.disks,
            Err(_) => plan.to.disks,
        };
        blocking(move || {
            if let Err(error) = surplus.remove_file(&name) {
                tracing::warn!(%error, file = %name, "a file that is not needed stays for now");
            }
            Ok(())
        })
        .await?;
        recorded
    }

    async fn record_move(&self, caller: &Caller, plan: &Plan) -> Result<(), Problem> {
        let id = plan.disk.id.to_string();
        let held = self.hold::<DiskRecord>(&id, IfMatch::Any).await?;
        datastores::require_known(&held.snapshot, plan.datastore)?;
        let new = held.old.value.clone().on(plan.datastore);
        let new = self.exchange(Batch::new(), &held.old, new).await?;
        self.make_known(caller, "disk_move", new.value.target(), Change::Changed);
        Ok(())
    }
}
