//! `lodge vm backup`: a VM's disks into a folder, in full or what changed since the last time; and the way back.
//!
//! The files are qcow2, each of which names the one before as its backing file. The snapshot that a backup was made of stays on
//! the host until the next one, which begins with it.

mod catalog;
mod restore;

use std::path::PathBuf;

use clap::Args;
use http::Method;
use lodge_api::backup_catalog::{Catalog, DiskFile, Entry};
use lodge_api::nvram::VmVariable;
use lodge_api::operation::Operation;
use lodge_api::page::Page;
use lodge_api::snapshot::{Snapshot, SnapshotCreate};
use lodge_api::vm::Vm;
use lodge_api::{ErrorCode, Name, Size};
use lodge_client::{Client, ClientError, encode_segment};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::catalog::Folder;
pub(super) use self::restore::{RestoreVm, restore};
use super::export::fetch;
use super::path;
use crate::context::Context;
use crate::output::{self, Format};
use crate::progress;
use crate::target::Target;

/// A VM, and where its backups are.
#[derive(Debug, Args)]
pub(crate) struct BackupVm {
    /// [REMOTE:]NAME
    name: Target,
    /// A folder for the backups of this VM alone; it is made if it is not there
    folder: PathBuf,
    /// Write all of the disks, also where only what changed since the last backup would do
    #[arg(long)]
    full: bool,
    /// Delete older backups when it is done: how many are kept, with those that they are made of
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
}

/// A folder of backups.
#[derive(Debug, Args)]
pub(crate) struct ListBackups {
    /// The folder that `lodge vm backup` wrote to
    folder: PathBuf,
}

/// Shows what is in a folder.
pub(super) fn list(context: &Context, arguments: &ListBackups) -> Result<(), ClientError> {
    let catalog = Folder::to_read(&arguments.folder).contents()?;
    let head = ["NUMBER", "TAKEN", "SIZE", "MADE OF"];
    output::list(context.format, &catalog.backups, &head, |backup| {
        let since: Vec<String> = backup.made_of().iter().map(u32::to_string).collect();
        vec![
            backup.number.to_string(),
            backup.taken_at.to_string(),
            Size(backup.bytes()).to_string(),
            since.join(", "),
        ]
    })
}

pub(super) async fn backup(context: &Context, arguments: BackupVm) -> Result<(), ClientError> {
    let BackupVm {
        name,
        folder,
        full,
        keep,
    } = arguments;
    let client = context.client(name.remote.as_deref())?;
    let vm: Vm = client.get(&path("vms", &name.name)).await?;
    let folder = Folder::open(&folder)?;
    let mut catalog = folder.read(vm.id)?;
    let last = catalog.backups.last().cloned();
    let base = match &last {
        Some(last) if !full && has(&client, &last.snapshot).await? => Some(last),
        _ => None,
    };
    let snapshot = take(&client, &vm).await?;
    let made = add(&client, &folder, &mut catalog, &snapshot, base).await;
    let backup = match made {
        Ok(backup) => backup,
        Err(error) => {
            // What was written is in no list, and is written over the next time.
            delete(&client, &snapshot.name).await;
            return Err(error);
        }
    };
    if let Some(last) = last {
        delete(&client, &last.snapshot).await;
    }
    if let Some(keep) = keep {
        prune(&folder, &mut catalog, keep)?;
    }
    told(context, &vm, &catalog, &backup)
}

/// Deletes what is older than the newest backups and not needed for them: from the list first.
fn prune(folder: &Folder, catalog: &mut Catalog, keep: u32) -> Result<(), ClientError> {
    let gone = catalog.prune(keep as usize);
    if gone.is_empty() {
        return Ok(());
    }
    folder.write(catalog)?;
    for file in gone.iter().flat_map(Entry::files) {
        folder.remove(file)?;
    }
    Ok(())
}

/// Whether the host still has a snapshot.
async fn has(client: &Client, snapshot: &Name) -> Result<bool, ClientError> {
    let url = path("snapshots", snapshot.as_str());
    there::<Snapshot>(client, &url).await
}

/// Whether there is a `T` at `url`.
async fn there<T: DeserializeOwned>(client: &Client, url: &str) -> Result<bool, ClientError> {
    match client.get::<T>(url).await {
        Ok(_) => Ok(true),
        Err(error)
            if error
                .problem()
                .is_some_and(|problem| problem.code == ErrorCode::NotFound) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes a snapshot of the disks.
async fn take(client: &Client, vm: &Vm) -> Result<Snapshot, ClientError> {
    let digits = Uuid::new_v4().simple().to_string();
    let name = format!("backup-{}", &digits[..12]);
    let name: Name = name
        .parse()
        .map_err(|error| ClientError::Usage(format!("{name}: {error}")))?;
    let own = path("snapshots", name.as_str());
    let body = SnapshotCreate {
        name,
        description: format!("Kept for the next backup of {}", vm.spec.name),
        memory: Some(false),
    };
    let url = format!("{}:snapshot", path("vms", vm.spec.name.as_str()));
    let operation: Operation = client.send(Method::POST, &url, &body, None).await?;
    progress::follow(client, operation).await?;
    client.get(&own).await
}

/// Deletes a snapshot that nobody needs any more. Should that fail, it is there to be seen.
async fn delete(client: &Client, snapshot: &Name) {
    if let Err(error) = client.delete(&path("snapshots", snapshot.as_str())).await {
        eprintln!("warning: the snapshot {snapshot} stays on the host: {error}");
    }
}

/// Writes a backup, and then the list with it.
async fn add(
    client: &Client,
    folder: &Folder,
    catalog: &mut Catalog,
    snapshot: &Snapshot,
    base: Option<&Entry>,
) -> Result<Entry, ClientError> {
    let backup = write(client, folder, snapshot, catalog.next_number(), base).await?;
    catalog.name = Some(snapshot.vm.clone());
    catalog.backups.push(backup.clone());
    folder.write(catalog)?;
    Ok(backup)
}

/// Writes a backup, which is in no list yet.
async fn write(
    client: &Client,
    folder: &Folder,
    snapshot: &Snapshot,
    number: u32,
    base: Option<&Entry>,
) -> Result<Entry, ClientError> {
    let configuration = format!("vm.{number:04}.json");
    folder.write_file(&configuration, &snapshot.spec)?;
    let mut backup = Entry {
        number,
        taken_at: snapshot.created_at,
        snapshot: snapshot.name.clone(),
        configuration,
        variables: write_variables(client, folder, snapshot, number).await?,
        disks: Default::default(),
        checksums: Default::default(),
    };
    for disk in &snapshot.spec.disks {
        let disk = &disk.disk;
        let base = base.and_then(|base| Some((base, base.disks.get(disk)?)));
        // One that was moved away is no base any more.
        let base = base.filter(|(_, file)| folder.at(&file.file).exists());
        let file = write_disk(client, folder, &backup, disk, base).await?;
        backup.disks.insert(disk.clone(), file);
    }
    Ok(backup)
}

async fn write_variables(
    client: &Client,
    folder: &Folder,
    snapshot: &Snapshot,
    number: u32,
) -> Result<Option<String>, ClientError> {
    let url = format!("{}/nvram", path("snapshots", snapshot.name.as_str()));
    let variables: Page<VmVariable> = client.get(&url).await?;
    if variables.items.is_empty() {
        return Ok(None);
    }
    let file = format!("nvram.{number:04}.json");
    folder.write_file(&file, &variables.items)?;
    Ok(Some(file))
}

async fn write_disk(
    client: &Client,
    folder: &Folder,
    backup: &Entry,
    disk: &Name,
    base: Option<(&Entry, &DiskFile)>,
) -> Result<DiskFile, ClientError> {
    let file = format!("{disk}.{:04}.qcow2", backup.number);
    folder.remove(&file)?;
    let own = path("snapshots", backup.snapshot.as_str());
    let mut url = format!("{own}/disks/{disk}/content?format=qcow2");
    if let Some((base, below)) = base {
        let (since, backing) = (base.snapshot.as_str(), encode_segment(&below.file));
        url += &format!("&since={since}&backing={backing}");
    }
    let (_, bytes) = fetch(client, &url, folder.at(&file)).await?;
    Ok(DiskFile {
        file,
        bytes,
        sha256: None,
        since: base.map(|(base, _)| base.number),
    })
}

fn told(context: &Context, vm: &Vm, catalog: &Catalog, backup: &Entry) -> Result<(), ClientError> {
    if context.format != Format::Table {
        return output::structured(context.format, backup);
    }
    for (disk, file) in &backup.disks {
        let what = match file.since {
            Some(since) => format!("what changed since backup {since}"),
            None => "all of it".to_owned(),
        };
        println!("{disk}: {}, {what}", Size(file.bytes));
    }
    let (name, number, count) = (&vm.spec.name, backup.number, catalog.backups.len());
    println!("VM {name} backed up, number {number} of {count} here");
    Ok(())
}
