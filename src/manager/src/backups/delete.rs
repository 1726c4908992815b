//! Deleting backups.

use std::collections::BTreeSet;

use lodge_api::backup::BackupDeleteParams;
use lodge_api::backup_catalog::{Catalog, Entry};
use lodge_api::operation::Operation;
use lodge_api::{ErrorCode, Problem};

use super::place::Folder;
use super::record::{self, BackupRecord};
use super::target::TargetRecord;
use super::{catalog, listing};
use crate::catalogue;
use crate::{Caller, Manager};

impl Manager {
    /// Deletes a backup from its target. The operation's target is `/v1/backups/ID`.
    ///
    /// # Errors
    /// `NotFound`; `InUse` while others are made of it that are to stay.
    pub async fn backup_delete(
        &self,
        caller: &Caller,
        key: &str,
        params: BackupDeleteParams,
    ) -> Result<Operation, Problem> {
        let backup = record::find(&self.core.snapshot(), key)?.value;
        self.require_unneeded(&backup, &params)?;
        let busy = self.core.backups.writing(backup.target, backup.vm_id)?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = listing::path(&backup);
            caller.audit("backup_delete", &target);
            let working = manager.clone();
            manager
                .core
                .start_operation(&caller, "backup_delete", target, false, |_| async move {
                    let _busy = busy;
                    working.remove_backup(&backup, &params).await
                })
                .await
        })
        .await
    }

    /// Refuses at once what is known to be impossible.
    fn require_unneeded(
        &self,
        backup: &BackupRecord,
        params: &BackupDeleteParams,
    ) -> Result<(), Problem> {
        let all = record::all(&self.core.snapshot()).into_iter();
        let all = all.map(|other| other.value);
        let later: BTreeSet<u32> = all
            .filter(|other| other.target == backup.target && other.folder == backup.folder)
            .filter(|other| other.made_of.contains(&backup.number))
            .map(|other| other.number)
            .collect();
        refuse_needed(&later, params)
    }

    async fn remove_backup(
        &self,
        backup: &BackupRecord,
        params: &BackupDeleteParams,
    ) -> Result<(), Problem> {
        let core = &self.core;
        let snapshot = core.snapshot();
        let target = catalogue::find::<TargetRecord>(&snapshot, &backup.target.to_string())?;
        let place = core.place(&target.value).await?;
        let folder = place.folder(&backup.folder)?;
        let found = catalog::read(&folder).await?;
        let mut catalog = found.unwrap_or_else(|| Catalog::of(backup.vm_id));
        let mut numbers = catalog.built_on(backup.number);
        refuse_needed(&numbers, params)?;
        numbers.insert(backup.number);
        let gone = catalog.remove(&numbers);
        take_away(&folder, &catalog, &gone).await?;
        core.follow_catalog(backup.target, &backup.folder, &catalog)
            .await
    }
}

/// Writes the list without what is to go, and then removes that.
pub(super) async fn take_away(
    folder: &Folder,
    catalog: &Catalog,
    gone: &[Entry],
) -> Result<(), Problem> {
    if gone.is_empty() {
        return Ok(());
    }
    catalog::write(folder, catalog).await?;
    for file in gone.iter().flat_map(Entry::files) {
        folder.remove(file).await?;
    }
    Ok(())
}

fn refuse_needed(later: &BTreeSet<u32>, params: &BackupDeleteParams) -> Result<(), Problem> {
    if later.is_empty() || params.with_later {
        return Ok(());
    }
    let numbers: Vec<String> = later.iter().take(10).map(u32::to_string).collect();
    let detail = format!(
        "other backups of the guest are made of it: {}",
        numbers.join(", ")
    );
    Err(Problem::new(ErrorCode::InUse, detail)
        .with_hint("delete those first, or all together: `lodge backup delete ID --with-later`"))
}
