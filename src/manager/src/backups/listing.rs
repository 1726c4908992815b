//! Which backups there are.

use lodge_api::backup::{Backup, BackupListParams};
use lodge_api::page::{ListParams, Page};
use lodge_api::{Name, Problem, Size};
use lodge_store::Snapshot;
use uuid::Uuid;

use super::record::{self, BackupRecord};
use super::target::TargetRecord;
use crate::Manager;
use crate::catalogue;
use crate::filter::{self, Field};

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("target", "/target"),
    ("vm", "/vm"),
    ("vm_id", "/vm_id"),
    ("number", "/number"),
    ("verified", "/verified"),
];

/// The path of a backup.
pub(super) fn path(backup: &BackupRecord) -> String {
    format!("{}/backups/{}", lodge_api::ROOT, backup.id)
}

impl Manager {
    /// By guest, target and number. Filter fields: `id target vm vm_id number verified`.
    ///
    /// # Errors
    /// `InvalidRequest` for wrong parameters, and for a target that is not there.
    pub fn backup_list(&self, params: BackupListParams) -> Result<Page<Backup>, Problem> {
        let snapshot = self.core.snapshot();
        let BackupListParams {
            limit,
            page,
            filter,
            target,
            vm,
        } = params;
        let target = target
            .map(|target| target_id(&snapshot, &target))
            .transpose()?;
        let of_vm = |backup: &BackupRecord| {
            vm.as_ref()
                .is_none_or(|vm| *vm == *backup.vm.as_str() || *vm == backup.vm_id.to_string())
        };
        let mut backups: Vec<_> = record::all(&snapshot)
            .into_iter()
            .map(|backup| backup.value)
            .filter(|backup| target.is_none_or(|target| backup.target == target))
            .filter(of_vm)
            .map(|backup| view(&snapshot, backup))
            .collect::<Result<_, _>>()?;
        let key = |backup: &Backup| {
            format!(
                "{} {} {} {:010}",
                backup.vm, backup.target, backup.folder, backup.number
            )
        };
        backups.sort_by_key(key);
        let params = ListParams {
            limit,
            page,
            filter,
        };
        filter::page(backups, &params, FIELDS, key)
    }

    /// One backup, by its id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn backup_view(&self, key: &str) -> Result<Backup, Problem> {
        let snapshot = self.core.snapshot();
        view(&snapshot, record::find(&snapshot, key)?.value)
    }
}

fn target_id(snapshot: &Snapshot, key: &str) -> Result<Uuid, Problem> {
    let found = catalogue::find::<TargetRecord>(snapshot, key);
    let found = found.map_err(|problem| Problem::invalid("?target", problem.detail))?;
    Ok(found.value.id)
}

fn view(snapshot: &Snapshot, backup: BackupRecord) -> Result<Backup, Problem> {
    let target = catalogue::find::<TargetRecord>(snapshot, &backup.target.to_string());
    let target: Name = target?.value.name;
    let (verified_at, verified, verification) = match backup.verified {
        Some(found) => (Some(found.at), Some(found.good), Some(found.found)),
        None => (None, None, None),
    };
    Ok(Backup {
        id: backup.id,
        target,
        vm: backup.vm,
        vm_id: backup.vm_id,
        folder: backup.folder,
        number: backup.number,
        taken_at: backup.taken_at,
        size: Size(backup.size),
        made_of: backup.made_of.into_iter().collect(),
        verified_at,
        verified,
        verification,
    })
}
