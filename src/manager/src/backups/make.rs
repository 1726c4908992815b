//! Making a backup of a guest.

use std::time::Duration;

use lodge_api::Problem;
use lodge_api::backup::VmBackup;
use lodge_api::backup_catalog::{Catalog, Entry};
use lodge_api::operation::Operation;
use tokio::time::timeout;
use uuid::Uuid;

use super::place::Folder;
use super::target::TargetRecord;
use super::write::{Job, is_leftover};
use super::{catalog, delete};
use crate::catalogue::{self, Object};
use crate::core::Core;
use crate::operations::{OperationHandle, cancelled, outcome};
use crate::snapshots::{self, SnapshotRecord};
use crate::vms::VmRecord;
use crate::{Caller, IfMatch, Manager};

/// How long a snapshot of disks may take, where they have to be copied.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How long files may take to be removed of one that broke off.
const UNDO: Duration = Duration::from_secs(10);

/// What is wanted.
pub(super) struct Wanted {
    pub(super) vm: Uuid,
    pub(super) target: Uuid,
    pub(super) full: Full,
    /// How many stay, if others are to be deleted.
    pub(super) keep: Option<u32>,
}

/// When all of the disks is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Now,
    /// Where there is nothing to begin with.
    IfNeeded,
    /// Of so many backups once.
    Every(u32),
}

impl Full {
    fn is_due(self, catalog: &Catalog) -> bool {
        match self {
            Self::Now => true,
            Self::IfNeeded => false,
            Self::Every(count) => {
                let newest = catalog.backups.iter().rev();
                let since = newest.take_while(|one| !one.made_of().is_empty()).count();
                since + 1 >= count as usize
            }
        }
    }
}

impl Manager {
    /// Backs a guest up to a target: its disks, configuration and UEFI variables. The operation's target is `/v1/vms/NAME`.
    ///
    /// # Errors
    /// `NotFound`, `InvalidRequest` for a target that is not there.
    pub async fn vm_backup(
        &self,
        caller: &Caller,
        key: &str,
        backup: VmBackup,
    ) -> Result<Operation, Problem> {
        let snapshot = self.core.snapshot();
        let vm = catalogue::find::<VmRecord>(&snapshot, key)?.value.id;
        let target = catalogue::find_optional::<TargetRecord>(&snapshot, &backup.target)?;
        let target = target.ok_or_else(|| {
            let name = catalogue::shown(&backup.target);
            Problem::invalid("/target", format!("there is no backup target \"{name}\""))
                .with_hint("`lodge backup target list` shows those there are")
        })?;
        let wanted = Wanted {
            vm,
            target: target.value.id,
            full: if backup.full {
                Full::Now
            } else {
                Full::IfNeeded
            },
            keep: None,
        };
        self.start_backup(caller, wanted).await
    }

    pub(super) async fn start_backup(
        &self,
        caller: &Caller,
        wanted: Wanted,
    ) -> Result<Operation, Problem> {
        let vm = catalogue::find::<VmRecord>(&self.core.snapshot(), &wanted.vm.to_string())?.value;
        let busy = self.core.backups.writing(wanted.target, wanted.vm)?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            caller.audit("vm_backup", &vm.target());
            let (working, asking, target) = (manager.clone(), caller.clone(), vm.target());
            manager
                .core
                .start_operation(&caller, "vm_backup", target, true, |handle| async move {
                    let _busy = busy;
                    working.back_up(&asking, &vm, &wanted, &handle).await
                })
                .await
        })
        .await
    }

    async fn back_up(
        &self,
        caller: &Caller,
        vm: &VmRecord,
        wanted: &Wanted,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let core = &self.core;
        let target = catalogue::find::<TargetRecord>(&core.snapshot(), &wanted.target.to_string())?;
        let target = target.value;
        let begun = async {
            let place = core.place(&target).await?;
            let found = core.folder_of(target.id, &place, vm.id, vm.name()).await?;
            let (folder, catalog) = found;
            self.clear(caller, &target, vm, &folder, &catalog).await?;
            Ok::<_, Problem>((folder, catalog))
        };
        let (folder, mut catalog) = or_cancelled(handle, begun).await?;
        let last = catalog.backups.last().cloned();
        let before = last.as_ref().map(|last| core.base(last, vm.id));
        let before = before.transpose()?.flatten();
        let base = before.as_ref().filter(|_| !wanted.full.is_due(&catalog));
        let there = or_cancelled(handle, folder.files()).await?;
        let snapshot = self.snapshot_now(caller, vm, &target, handle).await?;
        let job = Job {
            folder: &folder,
            number: catalog.next_number(),
            snapshot: &snapshot,
            base: last.as_ref().zip(base),
            there: &there,
        };
        let written = match or_cancelled(handle, self.write_backup(&job, handle)).await {
            Ok(entry) => match handle.commit_to_finish() {
                Ok(()) => list(&folder, &mut catalog, entry, vm).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        if let Err(problem) = written {
            self.undo(caller, &job).await;
            return Err(problem);
        }
        if let Some(before) = before {
            self.let_go(caller, &before).await;
        }
        if let Some(keep) = wanted.keep {
            let gone = catalog.prune(keep as usize);
            delete::take_away(&folder, &catalog, &gone).await?;
        }
        core.follow_catalog(target.id, folder.name(), &catalog)
            .await
    }

    /// Takes the snapshot that the backup is made of.
    async fn snapshot_now(
        &self,
        caller: &Caller,
        vm: &VmRecord,
        target: &TargetRecord,
        handle: &OperationHandle,
    ) -> Result<SnapshotRecord, Problem> {
        handle.progress("taking a snapshot", 0, 1);
        let description = format!(
            "Kept for the next backup of {} to {}",
            vm.name(),
            target.name
        );
        let taking = self.snapshot_for_backup(caller, vm.id, target.id, description);
        let (name, started) = taking.await?;
        let ended = tokio::select! {
            ended = self.operation_wait(started.id, PATIENCE) => ended?,
            () = handle.cancelled() => {
                // It may have ended just now: then the next backup removes it.
                let _ = self.operation_cancel(caller, started.id).await;
                return Err(cancelled());
            }
        };
        outcome(ended)?;
        Ok(catalogue::find(&self.core.snapshot(), name.as_str())?.value)
    }

    /// Removes what backups have left that broke off.
    async fn clear(
        &self,
        caller: &Caller,
        target: &TargetRecord,
        vm: &VmRecord,
        folder: &Folder,
        catalog: &Catalog,
    ) -> Result<(), Problem> {
        folder.sweep().await?;
        for file in folder.files().await?.keys() {
            if is_leftover(catalog, file) {
                tracing::info!(
                    file,
                    folder = folder.name(),
                    "a leftover of a backup is removed"
                );
                folder.remove(file).await?;
            }
        }
        let last = catalog.backups.last().map(|last| last.snapshot.clone());
        for kept in snapshots::kept_for(&self.core.snapshot(), target.id, Some(vm.id)) {
            if last.as_ref() != Some(kept.name()) {
                self.let_go(caller, &kept).await;
            }
        }
        Ok(())
    }

    /// Takes back what was written of a backup that is in no list. What cannot be, the next one removes: nobody waits long for a target that
    /// does not answer.
    async fn undo(&self, caller: &Caller, job: &Job<'_>) {
        let removed = async {
            for file in job.files() {
                job.folder.remove(&file).await?;
            }
            job.folder.leave().await;
            Ok::<_, Problem>(())
        };
        match timeout(UNDO, removed).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => {
                tracing::warn!(%problem, "files of a backup that broke off stay for now");
            }
            Err(_) => tracing::warn!("files of a backup that broke off stay for now"),
        }
        self.let_go(caller, job.snapshot).await;
    }

    /// Deletes a snapshot that nothing begins with. Should that fail, it is there to be seen.
    async fn let_go(&self, caller: &Caller, snapshot: &SnapshotRecord) {
        let id = snapshot.id().to_string();
        if let Err(problem) = self.snapshot_delete(caller, &id, IfMatch::Any).await {
            let name = snapshot.name();
            tracing::warn!(%problem, %name, "the snapshot of a backup stays");
        }
    }
}

impl Core {
    /// The snapshot of a backup, if it is there and of that guest.
    fn base(&self, entry: &Entry, vm: Uuid) -> Result<Option<SnapshotRecord>, Problem> {
        let name = entry.snapshot.as_str();
        let found = catalogue::find_optional::<SnapshotRecord>(&self.snapshot(), name)?;
        let found = found.map(|found| found.value);
        Ok(found.filter(|found| found.vm_id() == vm && found.created_at() == entry.taken_at))
    }
}

/// Adds a backup to the list, with which it is there.
async fn list(
    folder: &Folder,
    catalog: &mut Catalog,
    entry: Entry,
    vm: &VmRecord,
) -> Result<(), Problem> {
    catalog.name = Some(vm.name().clone());
    catalog.backups.push(entry);
    catalog::write(folder, catalog).await
}

/// Does it, unless somebody does not want it any more.
pub(super) async fn or_cancelled<T>(
    handle: &OperationHandle,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::select! {
        done = work => done,
        () = handle.cancelled() => Err(cancelled()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use lodge_api::backup_catalog::DiskFile;

    use super::*;

    #[test]
    fn of_so_many_one_is_whole() {
        let mut catalog = Catalog::of(Uuid::nil());
        let mut whole = BTreeSet::new();
        for number in 1..=7 {
            let full = Full::Every(3).is_due(&catalog) || number == 1;
            if full {
                whole.insert(number);
            }
            let disk = DiskFile {
                file: String::new(),
                bytes: 0,
                sha256: None,
                since: (!full).then(|| number - 1),
            };
            catalog.backups.push(Entry {
                number,
                taken_at: jiff::Timestamp::UNIX_EPOCH,
                snapshot: "backup".parse().unwrap(),
                configuration: String::new(),
                variables: None,
                disks: BTreeMap::from([("data".parse().unwrap(), disk)]),
                checksums: BTreeMap::new(),
            });
        }
        assert_eq!(whole, BTreeSet::from([1, 4, 7]));
        assert!(Full::Every(1).is_due(&catalog) && Full::Now.is_due(&catalog));
        assert!(!Full::IfNeeded.is_due(&catalog));
    }
}
