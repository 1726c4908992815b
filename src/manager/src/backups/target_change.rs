//! Adding, changing and removing backup targets. What becomes one has shown that it can be written to.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lodge_api::backup::{BackupTarget, BackupTargetCreate, BackupTargetKind, BackupTargetPatch};
use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Precondition, Snapshot, Versioned};
use uuid::Uuid;

use super::catalog;
use super::place::Place;
use super::record::{self, BackupRecord};
use super::target::{At, TargetRecord};
use crate::catalogue::{self, Object};
use crate::core::Core;
use crate::datastores::DatastoreRecord;
use crate::filter::{self, Field};
use crate::operations::{OperationHandle, cancelled};
use crate::snapshots;
use crate::vms::VmRecord;
use crate::{Caller, IfMatch, Manager};

const FIELDS: &[Field] = &[("id", "/id"), ("name", "/name"), ("kind", "/kind")];

/// Longest prefix, in bytes: keys have at most 1024 (Amazon S3 User Guide, "Naming objects").
const LONGEST_PREFIX: usize = 400;

/// The region where none is given, as other programs have it.
const REGION: &str = "us-east-1";

impl Manager {
    /// By name. Filter fields: `id name kind`.
    pub fn target_list(&self, params: &ListParams) -> Result<Page<BackupTarget>, Problem> {
        let targets = catalogue::list::<TargetRecord>(&self.core.snapshot());
        let views = targets.iter().map(|target| self.core.target_of(target));
        let views = views.collect::<Result<Vec<_>, _>>()?;
        filter::page(views, params, FIELDS, |target| target.name.to_string())
    }

    /// One backup target, by name or id.
    pub fn target_view(&self, key: &str) -> Result<BackupTarget, Problem> {
        let record = catalogue::find(&self.core.snapshot(), key)?;
        self.core.target_of(&record)
    }

    /// Adds a backup target, once a small file could be written there, read and removed. Backups that are there already are known from then on.
    /// The operation's target is `/v1/backup-targets/NAME`.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidRequest`; what the target refuses is the operation's.
    pub async fn target_create(
        &self,
        caller: &Caller,
        create: BackupTargetCreate,
    ) -> Result<Operation, Problem> {
        let snapshot = self.core.snapshot();
        catalogue::require_free::<TargetRecord>(&snapshot, &create.name)?;
        let record = TargetRecord {
            id: Uuid::now_v7(),
            name: create.name.clone(),
            at: self.at(&snapshot, create)?,
            created_at: Timestamp::now(),
        };
        self.change_target(caller, "target_create", record, None)
            .await
    }

    /// Renames a target, or changes how it is reached; that is tried first, as for [`Manager::target_create`].
    ///
    /// # Errors
    /// `InvalidRequest` for what the target does not have; what it refuses is the operation's.
    pub async fn target_patch(
        &self,
        caller: &Caller,
        key: &str,
        patch: BackupTargetPatch,
        if_match: IfMatch,
    ) -> Result<Operation, Problem> {
        let snapshot = self.core.snapshot();
        let old = catalogue::find::<TargetRecord>(&snapshot, key)?;
        catalogue::check_match(old.revision, if_match)?;
        let mut new = old.value.clone();
        if let Some(name) = &patch.name
            && *name != new.name
        {
            catalogue::require_free::<TargetRecord>(&snapshot, name)?;
            require_unscheduled(&snapshot, &new.name, "renamed")?;
            new.name = name.clone();
        }
        patched(&mut new.at, patch)?;
        self.change_target(caller, "target_update", new, Some(old))
            .await
    }

    async fn change_target(
        &self,
        caller: &Caller,
        what: &'static str,
        new: TargetRecord,
        old: Option<Versioned<TargetRecord>>,
    ) -> Result<Operation, Problem> {
        // Wrong settings are refused before anything begins; a directory is opened in the operation.
        if matches!(new.at, At::S3 { .. }) {
            self.core.place(&new).await?;
        }
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = new.target();
            caller.audit(what, &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            let work = move |handle: OperationHandle| async move {
                let tested = tokio::select! {
                    tested = core.test_target(&new, &handle) => tested?,
                    () = handle.cancelled() => return Err(cancelled()),
                };
                handle.commit_to_finish()?;
                core.keep_target(&asking, &new, old.as_ref()).await?;
                for (folder, catalog) in tested {
                    core.follow_catalog(new.id, &folder, &catalog).await?;
                }
                Ok(())
            };
            manager
                .core
                .start_operation(&caller, what, target, true, work)
                .await
        })
        .await
    }

    /// Forgets a target. What is there stays, and is known again when the target is added again.
    ///
    /// # Errors
    /// `InUse` while guests have schedules that name it, and while it is read or written.
    pub async fn target_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<TargetRecord>(&key, if_match).await?;
            let target = held.old.value.clone();
            require_unscheduled(&held.snapshot, &target.name, "removed")?;
            if core.backups.is_used(target.id) {
                let detail = "backups are being read from the target, or written to it";
                return Err(Problem::new(ErrorCode::InUse, detail)
                    .with_hint("wait for the end of it; `lodge operation list` shows it"));
            }
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, &held.old)?;
            for backup in record::all(&held.snapshot) {
                if backup.value.target == target.id {
                    batch
                        .delete::<BackupRecord>(backup.value.id.to_string(), Precondition::Any)
                        .map_err(|error| catalogue::record_problem(&error))?;
                }
            }
            core.commit(batch).await?;
            drop(held);
            core.make_known(&caller, "target_delete", target.target(), Change::Deleted);
            // Nothing begins with them any more.
            for snapshot in snapshots::kept_for(&core.snapshot(), target.id, None) {
                let id = snapshot.id().to_string();
                manager.snapshot_delete(&caller, &id, IfMatch::Any).await?;
            }
            Ok(())
        })
        .await
    }

    /// Where a target is to be.
    fn at(&self, snapshot: &Snapshot, create: BackupTargetCreate) -> Result<At, Problem> {
        let needed = |value: Option<String>, field: &str| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| {
                Problem::invalid(format!("/{field}"), "a target of kind s3 needs it")
            })
        };
        match create.kind {
            BackupTargetKind::S3 => {
                refuse(create.datastore.as_ref(), "datastore", "directory")?;
                refuse(create.directory.as_ref(), "directory", "directory")?;
                Ok(At::S3 {
                    endpoint: needed(create.endpoint, "endpoint")?,
                    region: create.region.unwrap_or_else(|| REGION.to_owned()),
                    bucket: needed(create.bucket, "bucket")?,
                    prefix: create
                        .prefix
                        .filter(|p| !p.is_empty())
                        .map(prefix)
                        .transpose()?,
                    access_key: needed(create.access_key, "access_key")?,
                    secret_key: needed(create.secret_key, "secret_key")?,
                })
            }
            BackupTargetKind::Directory => {
                refuse(create.endpoint.as_ref(), "endpoint", "s3")?;
                refuse(create.region.as_ref(), "region", "s3")?;
                refuse(create.bucket.as_ref(), "bucket", "s3")?;
                refuse(create.prefix.as_ref(), "prefix", "s3")?;
                refuse(create.access_key.as_ref(), "access_key", "s3")?;
                refuse(create.secret_key.as_ref(), "secret_key", "s3")?;
                match (create.datastore, create.directory) {
                    (Some(name), None) => on_datastore(snapshot, &name),
                    (None, Some(path)) => self.in_directory(Path::new(&path)),
                    _ => Err(Problem::invalid(
                        "/datastore",
                        "either a datastore or a directory is needed",
                    )
                    .with_hint("`lodge datastore list` shows the datastores")),
                }
            }
        }
    }

    fn in_directory(&self, path: &Path) -> Result<At, Problem> {
        let invalid = |detail: &str| Problem::invalid("/directory", detail);
        if self.core.config.appliance {
            return Err(invalid("this host has no directories of its own")
                .with_hint("give a datastore; `lodge datastore list` shows them"));
        }
        if !path.is_absolute() {
            return Err(invalid("not an absolute path").with_hint("begin it with a slash"));
        }
        let own = &self.core.config.data_dir;
        if path.starts_with(own) || own.starts_with(path) {
            return Err(invalid("the host's own data are there")
                .with_hint("give a directory beside them, best on another disk"));
        }
        Ok(At::Directory {
            path: PathBuf::from(path),
        })
    }
}

impl Core {
    /// Tries a target, and reads what backups are there.
    async fn test_target(
        &self,
        target: &TargetRecord,
        handle: &OperationHandle,
    ) -> Result<Vec<(String, lodge_api::backup_catalog::Catalog)>, Problem> {
        handle.progress("writing, reading and removing a file", 0, 2);
        let place: Place = self.place(target).await?;
        place.test().await?;
        handle.progress("looking for backups", 1, 2);
        let mut found = Vec::new();
        for name in place.folders().await? {
            let read = match place.folder(&name) {
                Ok(folder) => catalog::read(&folder).await,
                Err(problem) => Err(problem),
            };
            match read {
                Ok(Some(catalog)) => found.push((name, catalog)),
                Ok(None) => {}
                Err(problem) => handle.log(format!("{name} is left out: {problem}")),
            }
        }
        Ok(found)
    }

    async fn keep_target(
        &self,
        caller: &Caller,
        new: &TargetRecord,
        old: Option<&Versioned<TargetRecord>>,
    ) -> Result<(), Problem> {
        let _changing = self.catalogue.lock().await;
        let snapshot = self.snapshot();
        if let At::Datastore { id } = &new.at {
            catalogue::find::<DatastoreRecord>(&snapshot, &id.to_string())?;
        }
        let (what, change) = match old {
            None => {
                self.add(new).await?;
                ("target_create", Change::Created)
            }
            Some(old) => {
                if old.value.name != new.name {
                    require_unscheduled(&snapshot, &old.value.name, "renamed")?;
                }
                self.exchange(Batch::new(), old, new.clone()).await?;
                ("target_update", Change::Changed)
            }
        };
        self.make_known(caller, what, new.target(), change);
        Ok(())
    }
}

fn on_datastore(snapshot: &Snapshot, name: &Name) -> Result<At, Problem> {
    let found = catalogue::find_optional::<DatastoreRecord>(snapshot, name.as_str())?;
    let found = found.ok_or_else(|| {
        Problem::invalid("/datastore", format!("there is no datastore \"{name}\""))
            .with_hint("`lodge datastore list` shows those there are")
    })?;
    Ok(At::Datastore { id: found.value.id })
}

fn patched(at: &mut At, patch: BackupTargetPatch) -> Result<(), Problem> {
    let BackupTargetPatch {
        name: _,
        endpoint: new_endpoint,
        region: new_region,
        access_key: new_access_key,
        secret_key: new_secret_key,
    } = patch;
    let At::S3 {
        endpoint,
        region,
        access_key,
        secret_key,
        ..
    } = at
    else {
        refuse(new_endpoint.as_ref(), "endpoint", "s3")?;
        refuse(new_region.as_ref(), "region", "s3")?;
        refuse(new_access_key.as_ref(), "access_key", "s3")?;
        return refuse(new_secret_key.as_ref(), "secret_key", "s3");
    };
    for (field, new) in [
        (endpoint, new_endpoint),
        (region, new_region),
        (access_key, new_access_key),
        (secret_key, new_secret_key),
    ] {
        if let Some(new) = new {
            *field = new;
        }
    }
    Ok(())
}

/// Refuses a field of another kind of target.
fn refuse<T>(value: Option<&T>, field: &str, kind: &str) -> Result<(), Problem> {
    match value {
        None => Ok(()),
        Some(_) => Err(Problem::invalid(
            format!("/{field}"),
            format!("only targets of kind {kind} have it"),
        )),
    }
}

fn prefix(prefix: String) -> Result<String, Problem> {
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+=@".contains(&byte);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed)
    };
    if prefix.len() > LONGEST_PREFIX || !prefix.split('/').all(plain) {
        return Err(Problem::invalid("/prefix", "not a prefix of keys").with_hint(format!(
            "use at most {LONGEST_PREFIX} letters, digits, '-', '_', '.', '+', '=' and '@', with single slashes between"
        )));
    }
    Ok(prefix)
}

/// Refuses while guests have schedules that name it.
fn require_unscheduled(snapshot: &Snapshot, target: &Name, what: &str) -> Result<(), Problem> {
    let names: Vec<Name> = catalogue::list::<VmRecord>(snapshot)
        .into_iter()
        .map(|vm| vm.value.spec)
        .filter(|spec| {
            let schedule = spec.backup_schedule.as_ref();
            schedule.is_some_and(|schedule| schedule.target == *target)
        })
        .map(|spec| spec.name)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = catalogue::listed(&names);
    let detail =
        format!("guests are backed up to it by schedule, so that it cannot be {what}: {names}");
    Err(Problem::new(ErrorCode::InUse, detail)
        .with_hint("take their schedules away first: `lodge vm set NAME --no-backup-schedule`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_keys_without_surprises() {
        for good in ["lodge", "lab/host-1", "a.b/c=d"] {
            assert_eq!(prefix(good.to_owned()).unwrap(), good);
        }
        for odd in [
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "a b",
            "ä",
            &"a".repeat(401),
        ] {
            let problem = prefix(odd.to_owned()).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("/prefix"), "{odd}");
        }
    }
}
