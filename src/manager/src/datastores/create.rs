//! New datastores: on a disk of the host, on an NFS server, or in a directory.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use lodge_api::datastore::{DatastoreCreate, Nfs};
use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::disk::{
    BlockDevice, ExclusiveDisk, FilesystemKind, block_devices, filesystems, make_xfs,
};
use uuid::Uuid;

use super::DatastoreRecord;
use super::home::{Home, has_content, mount_point};
use super::nfs::{self, Opening};
use super::record::Backing;
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking, internal};
use crate::install::{blank_disk, named_disk, unknown_disks};
use crate::operations::OperationHandle;
use crate::{Caller, Manager};

/// Label of its filesystem. Anything but this is no datastore that could be taken over.
const LABEL: &str = "lodge-store";

/// Smallest disk: less is no XFS filesystem for `mkfs.xfs`.
const LEAST: u64 = 512 << 20;

/// A datastore that is about to be.
struct Plan {
    record: DatastoreRecord,
    /// A disk to be formatted.
    format: Option<BlockDevice>,
    adopt: bool,
}

impl Manager {
    /// Makes a datastore, or takes one over that is there. What can be checked is checked before this returns; the operation does the
    /// rest. Its target is `/v1/datastores/NAME`.
    ///
    /// # Errors
    /// `InvalidRequest` for a disk that is not there or not blank, `InUse` for one that is used.
    pub async fn datastore_create(
        &self,
        caller: &Caller,
        create: DatastoreCreate,
    ) -> Result<Operation, Problem> {
        self.core.require_changeable()?;
        let planning = self.core.clone();
        let plan = blocking(move || planning.plan_datastore(&create)).await?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = plan.record.target();
            caller.audit("datastore_create", &target);
            let (core, asking) = (manager.core.clone(), caller.clone());
            let work =
                move |handle| async move { core.make_datastore(&asking, plan, &handle).await };
            manager
                .core
                .start_operation(&caller, "datastore_create", target, false, work)
                .await
        })
        .await
    }
}

impl Core {
    fn plan_datastore(&self, create: &DatastoreCreate) -> Result<Plan, Problem> {
        catalogue::require_free::<DatastoreRecord>(&self.snapshot(), &create.name)?;
        match (&create.disk, &create.nfs, &create.directory) {
            (Some(disk), None, None) => self.plan_on_disk(create, disk),
            (None, Some(nfs), None) => self.plan_on_server(create, nfs),
            (None, None, Some(path)) => self.plan_in_directory(create, Path::new(path)),
            _ => Err(Problem::invalid(
                "/disk",
                "one of a disk, a directory of an NFS server and a directory is needed",
            )
            .with_hint("`lodge system disks` lists the disks of the host")),
        }
    }

    fn plan_on_disk(&self, create: &DatastoreCreate, disk: &str) -> Result<Plan, Problem> {
        if create.adopt {
            let id = self.datastore_on(disk)?;
            return Ok(plan(create.name.clone(), id, on(disk), true));
        }
        let found =
            blank_disk(disk, create.erase).map_err(|problem| self.say_whose(problem, disk))?;
        if found.device.size < LEAST {
            let mib = LEAST >> 20;
            return Err(Problem::invalid("/disk", "the disk is too small")
                .with_hint(format!("a datastore needs at least {mib} MiB")));
        }
        Ok(Plan {
            format: Some(found.device),
            ..plan(create.name.clone(), Uuid::now_v7(), on(disk), false)
        })
    }

    /// The id of the datastore on a disk that is to be taken over.
    fn datastore_on(&self, disk: &str) -> Result<Uuid, Problem> {
        let found = named_disk(disk)?;
        let devices = block_devices().map_err(|error| unknown_disks(&error))?;
        let name = &found.device.name;
        let of_it: Vec<BlockDevice> = devices
            .into_iter()
            .filter(|device| device.name == *name || device.parent.as_ref() == Some(name))
            .collect();
        let there = filesystems(&of_it).into_iter().find(|found| {
            let filesystem = &found.filesystem;
            filesystem.kind == FilesystemKind::Xfs && filesystem.label == LABEL
        });
        let id = there.and_then(|found| found.filesystem.uuid.parse::<Uuid>().ok());
        let id = id.ok_or_else(|| {
            Problem::invalid("/adopt", "no datastore of Lodge is on the disk")
                .with_hint("leave `adopt` out to make a new one")
        })?;
        self.refuse_known(id)?;
        Ok(id)
    }

    fn refuse_known(&self, id: Uuid) -> Result<(), Problem> {
        let known = catalogue::find_optional::<DatastoreRecord>(&self.snapshot(), &id.to_string())?;
        known.map_or(Ok(()), |known| {
            let detail = format!("it is the datastore \"{}\"", known.value.name);
            Err(Problem::new(ErrorCode::InUse, detail).with_pointer("/disk"))
        })
    }

    /// What is in the way may be a datastore of this host that cannot be mounted at present.
    fn say_whose(&self, problem: Problem, disk: &str) -> Problem {
        let known = self.datastores_beside().into_iter().find(
            |record| matches!(&record.backing, Backing::Disk { disk: known } if known == disk),
        );
        match known {
            Some(record) => Problem {
                detail: format!("{} (the datastore \"{}\")", problem.detail, record.name),
                ..problem
            },
            None => problem,
        }
    }

    fn plan_on_server(&self, create: &DatastoreCreate, nfs: &Nfs) -> Result<Plan, Problem> {
        nfs::check(create, nfs)?;
        let backing = Backing::Nfs { nfs: nfs.clone() };
        let mut known = self.datastores_beside().into_iter();
        if let Some(known) = known.find(|record| record.backing == backing) {
            let detail = format!("it is the datastore \"{}\"", known.name);
            return Err(Problem::new(ErrorCode::InUse, detail).with_pointer("/nfs"));
        }
        Ok(plan(
            create.name.clone(),
            Uuid::now_v7(),
            backing,
            create.adopt,
        ))
    }

    /// The id of the datastore on a server: of the one that is taken over, or a new one where none is.
    async fn datastore_at(&self, plan: &Plan, nfs: &Nfs) -> Result<Uuid, Problem> {
        let id = plan.record.id;
        let failed = |problem: String| Problem::invalid("/nfs", problem);
        let source = self.nfs_source(id, nfs).await.map_err(failed)?;
        let at = mount_point(&self.config.run_dir, id);
        let there = blocking(move || source.look(&at).map_err(failed)).await?;
        match (there.occupied, plan.adopt) {
            (false, false) => Ok(id),
            (false, true) => Err(Problem::invalid("/adopt", "no datastore of Lodge is there")
                .with_hint("leave `adopt` out to make a new one")),
            (true, false) => {
                let whose = there.owner.map_or_else(String::new, |owner| {
                    format!(" of the host \"{}\"", owner.hostname)
                });
                let detail = format!("a datastore{whose} is there");
                Err(Problem::new(ErrorCode::InUse, detail)
                    .with_pointer("/nfs")
                    .with_hint("give another directory; `adopt` takes over what no host uses"))
            }
            (true, true) => {
                let id = there.owner.map_or(id, |owner| owner.id);
                self.refuse_known(id)?;
                Ok(id)
            }
        }
    }

    fn plan_in_directory(&self, create: &DatastoreCreate, path: &Path) -> Result<Plan, Problem> {
        let invalid = |detail: String| Problem::invalid("/directory", detail);
        if self.config.appliance {
            return Err(
                invalid("this host has no directories of its own".to_owned())
                    .with_hint("give a disk; `lodge system disks` lists them"),
            );
        }
        if create.erase {
            return Err(Problem::invalid("/erase", "no directory is erased"));
        }
        let path = path.canonicalize();
        let path = path.map_err(|error| invalid(format!("{error}")).with_hint("make it first"))?;
        let filled = has_content(&path).map_err(|error| invalid(format!("{error}")))?;
        if create.adopt {
            Home::of_directory(&path, false).map_err(|problem| {
                Problem::invalid("/adopt", format!("no datastore is there: {problem}"))
            })?;
        } else if filled {
            return Err(invalid("the directory is not empty".to_owned())
                .with_hint("give an empty one, or `adopt` for one that is a datastore"));
        }
        self.refuse_known_directory(&path)?;
        let backing = Backing::Directory { path };
        Ok(plan(
            create.name.clone(),
            Uuid::now_v7(),
            backing,
            create.adopt,
        ))
    }

    fn refuse_known_directory(&self, path: &Path) -> Result<(), Problem> {
        let own = self.config.data_dir.canonicalize().unwrap_or_default();
        let taken = path.starts_with(&own)
            || self.datastores_beside().iter().any(|record| {
                matches!(&record.backing, Backing::Directory { path: known } if known == path)
            });
        match taken {
            true => Err(
                Problem::new(ErrorCode::InUse, "the directory is a datastore already")
                    .with_pointer("/directory"),
            ),
            false => Ok(()),
        }
    }

    async fn make_datastore(
        self: &Arc<Self>,
        caller: &Caller,
        plan: Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let id = match &plan.record.backing {
            Backing::Nfs { nfs } => {
                handle.progress("asking the server", 0, 1);
                self.datastore_at(&plan, nfs).await?
            }
            _ => plan.record.id,
        };
        let record = DatastoreRecord { id, ..plan.record };
        if let Some(device) = plan.format {
            handle.progress("making the filesystem", 0, 1);
            blocking(move || make_filesystem(&device, id)).await?;
        }
        let opening = match plan.adopt {
            true => Opening::Adopt,
            false => Opening::New,
        };
        let home = self.home_of(id, &record.backing, opening).await;
        let home = home.map_err(|problem| cannot_be_opened(&record, problem))?;
        let made = self.record_datastore(&record, home.clone()).await;
        if let Err(problem) = made {
            self.datastores.forget(id);
            let left = blocking(move || {
                if opening == Opening::New {
                    home.clear_claimed();
                }
                home.leave()
            });
            if let Err(problem) = left.await {
                tracing::warn!(%problem, "what could not be recorded stays mounted");
            }
            return Err(problem);
        }
        self.make_known(caller, "datastore_create", record.target(), Change::Created);
        Ok(())
    }

    async fn record_datastore(
        self: &Arc<Self>,
        record: &DatastoreRecord,
        home: Home,
    ) -> Result<(), Problem> {
        let cell = self.datastores.cell(record.id);
        let _changing = cell.changing.lock().await;
        self.add(record).await?;
        // What is on one that is taken over. What cannot be recorded now is kept, and tried again when it is opened the next time.
        let settled = self.settle(record, &home.folders).await;
        let notes = settled.unwrap_or_else(|problem| vec![problem.to_string()]);
        self.publish(record.id, &cell, home, notes);
        Ok(())
    }
}

/// A server says what is wrong, and that can be mended; everything else was looked at before.
fn cannot_be_opened(record: &DatastoreRecord, problem: String) -> Problem {
    match record.backing {
        Backing::Nfs { .. } => Problem::invalid("/nfs", problem),
        _ => internal(problem),
    }
}

fn on(disk: &str) -> Backing {
    Backing::Disk {
        disk: disk.to_owned(),
    }
}

fn plan(name: Name, id: Uuid, backing: Backing, adopt: bool) -> Plan {
    Plan {
        record: DatastoreRecord {
            id,
            name,
            backing,
            unsettled: adopt,
            created_at: Timestamp::now(),
        },
        format: None,
        adopt,
    }
}

fn make_filesystem(device: &BlockDevice, id: Uuid) -> Result<(), Problem> {
    let failed = |error: std::io::Error| internal(format!("{}: {error}", device.name));
    {
        let disk = ExclusiveDisk::open(device).map_err(failed)?;
        disk.wipe([]).map_err(failed)?;
        disk.reread_partitions().map_err(failed)?;
    }
    make_xfs(&device.path(), LABEL, Some(id)).map_err(|error| internal(error.to_string()))
}
