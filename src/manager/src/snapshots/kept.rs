//! Snapshots that backups are made of: the last one's is kept, for the next.

use lodge_api::operation::Operation;
use lodge_api::snapshot::SnapshotCreate;
use lodge_api::vm::VmSpec;
use lodge_api::{Name, Problem};
use lodge_store::Snapshot;
use uuid::Uuid;

use super::SnapshotRecord;
use crate::catalogue;
use crate::core::internal;
use crate::{Caller, Manager};

impl SnapshotRecord {
    /// The configuration of its guest.
    pub(crate) fn spec(&self) -> &VmSpec {
        &self.spec
    }

    /// The guest.
    pub(crate) fn vm_id(&self) -> Uuid {
        self.vm_id
    }

    /// When its guest was like that.
    pub(crate) fn created_at(&self) -> jiff::Timestamp {
        self.created_at
    }

    /// Where the copy of a disk of that name is, and of which disk it is one.
    pub(crate) fn disk(&self, name: &Name) -> Option<(usize, Uuid)> {
        let number = self
            .spec
            .disks
            .iter()
            .position(|entry| entry.disk == *name)?;
        Some((number, *self.disks.get(number)?))
    }
}

/// Those that are kept for backups to a target, of one guest or of all.
pub(crate) fn kept_for(snapshot: &Snapshot, target: Uuid, vm: Option<Uuid>) -> Vec<SnapshotRecord> {
    let all = catalogue::list::<SnapshotRecord>(snapshot).into_iter();
    all.map(|record| record.value)
        .filter(|record| record.kept_for == Some(target))
        .filter(|record| vm.is_none_or(|vm| record.vm_id == vm))
        .collect()
}

impl Manager {
    /// Takes a snapshot of a guest's disks, which a backup is to be made of. It comes with its name.
    ///
    /// # Errors
    /// Those of [`Manager::vm_snapshot`].
    pub(crate) async fn snapshot_for_backup(
        &self,
        caller: &Caller,
        vm: Uuid,
        target: Uuid,
        description: String,
    ) -> Result<(Name, Operation), Problem> {
        let digits = Uuid::new_v4().simple().to_string();
        let name = format!("backup-{}", &digits[..12]);
        let name: Name = name
            .parse()
            .map_err(|_| internal(format!("the name {name} cannot be given")))?;
        let create = SnapshotCreate {
            name: name.clone(),
            description,
            memory: Some(false),
        };
        let mut plan = self.core.plan_snapshot(&vm.to_string(), create).await?;
        plan.record.kept_for = Some(target);
        let started = self.start_snapshot(caller, plan).await?;
        Ok((name, started))
    }
}
