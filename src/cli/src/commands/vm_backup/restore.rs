//! `lodge vm restore`: a VM out of a folder of backups.
//!
//! The whole of each disk is uploaded as an image, and what changed later is applied to the disk that is made of it, in order.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use lodge_api::backup_catalog::{Catalog, DiskFile, Entry};
use lodge_api::disk::Disk;
use lodge_api::image::Image;
use lodge_api::nvram::{VmVariable, VmVariableSet};
use lodge_api::operation::Operation;
use lodge_api::vm::{Vm, VmSpec};
use lodge_api::{Name, Size};
use lodge_client::{Client, ClientError, encode_segment};
use serde_json::{Value, json};
use uuid::Uuid;

use super::catalog::Folder;
use crate::commands::disk::parse_name;
use crate::commands::image_upload::{Sent, send};
use crate::commands::path;
use crate::context::Context;
use crate::output::{self, Format};
use crate::progress;
use crate::target::Target;

/// A folder of backups, and what is made of it.
#[derive(Debug, Args)]
pub(crate) struct RestoreVm {
    /// The folder that `lodge vm backup` wrote to
    folder: PathBuf,
    /// [REMOTE:]NAME of the VM to make, with disks and addresses of its own; without, or with REMOTE: alone, those that it had
    name: Option<Target>,
    /// Which backup; without, the newest
    #[arg(long)]
    number: Option<u32>,
}

pub(crate) async fn restore(context: &Context, arguments: RestoreVm) -> Result<(), ClientError> {
    let RestoreVm {
        folder,
        name,
        number,
    } = arguments;
    let folder = Folder::to_read(&folder);
    let catalog = folder.contents()?;
    let backup = catalog.backup(number).map_err(ClientError::Usage)?;
    let mut plan = plan(&folder, &catalog, backup, name.as_ref())?;
    let remote = name.and_then(|name| name.remote);
    let client = context.client(remote.as_deref())?;
    forget_missing_target(&client, &mut plan.spec).await?;
    let there = require_possible(&client, &plan).await?;
    let mut restoring = Restoring {
        context,
        client: &client,
        remote,
        made: Vec::new(),
    };
    match restoring.make(&folder, &plan, there).await {
        Ok(vm) => told(context, &vm, backup, &plan),
        Err(error) => {
            restoring.undo().await;
            Err(error)
        }
    }
}

/// A VM to be.
struct Plan<'a> {
    spec: VmSpec,
    /// Of each of its disks the files, from the whole one on.
    disks: Vec<Vec<&'a DiskFile>>,
    variables: Vec<VmVariable>,
}

fn plan<'a>(
    folder: &Folder,
    catalog: &'a Catalog,
    backup: &'a Entry,
    name: Option<&Target>,
) -> Result<Plan<'a>, ClientError> {
    let mut spec: VmSpec = folder.read_file(&backup.configuration)?;
    let mut disks = Vec::new();
    for entry in &spec.disks {
        let files = catalog.chain(backup, &entry.disk);
        let files = files.map_err(ClientError::Usage)?;
        for file in &files {
            folder.require(&file.file)?;
        }
        disks.push(files);
    }
    let variables = match &backup.variables {
        Some(file) => folder.read_file(file)?,
        None => Vec::new(),
    };
    // `REMOTE:` alone is for the one that it was, on another host.
    let another = name.map(|name| name.name.as_str());
    let another = another.filter(|name| !name.is_empty() && *name != spec.name.as_str());
    if let Some(name) = another {
        make_another(&mut spec, name)?;
    }
    Ok(Plan {
        spec,
        disks,
        variables,
    })
}

/// Makes it one that may be beside the one that it was.
fn make_another(spec: &mut VmSpec, name: &str) -> Result<(), ClientError> {
    spec.name = parse_name(name)?;
    spec.snapshot_schedule = None;
    spec.backup_schedule = None;
    for nic in &mut spec.nics {
        nic.mac = None;
    }
    for (number, entry) in spec.disks.iter_mut().enumerate() {
        entry.disk = parse_name(&format!("{name}-disk{number}"))?;
    }
    Ok(())
}

/// Another host may not have the target that the host's own backups of the VM go to.
async fn forget_missing_target(client: &Client, spec: &mut VmSpec) -> Result<(), ClientError> {
    if let Some(schedule) = &spec.backup_schedule
        && !is_there(client, "backup-targets", &schedule.target).await?
    {
        let target = &schedule.target;
        eprintln!(
            "warning: the VM is not backed up by schedule any more: the host has no target {target}"
        );
        spec.backup_schedule = None;
    }
    Ok(())
}

/// Finds out before anything is sent what would fail at the end. Answers the VM if it is there, and only its disks are not: as after
/// `lodge config restore`.
async fn require_possible(client: &Client, plan: &Plan<'_>) -> Result<Option<Vm>, ClientError> {
    let spec = &plan.spec;
    let there = without_disks(client, spec).await?;
    let vm = there.is_none().then_some(("vms", "VM", &spec.name));
    let disks = spec
        .disks
        .iter()
        .map(|entry| ("disks", "disk", &entry.disk));
    for (collection, kind, name) in vm.into_iter().chain(disks) {
        if is_there(client, collection, name).await? {
            let text = format!(
                "there is a {kind} {name} already; give the VM another name: lodge vm restore FOLDER NAME"
            );
            return Err(ClientError::Usage(text));
        }
    }
    let networks = spec
        .nics
        .iter()
        .map(|nic| ("networks", "network", &nic.network));
    let discs = spec.cdroms.iter().filter_map(|drive| drive.image.as_ref());
    let files = [&spec.boot.kernel, &spec.boot.initrd].into_iter().flatten();
    let images = files.chain(discs).map(|name| ("images", "image", name));
    for (collection, kind, name) in networks.chain(images) {
        if !is_there(client, collection, name).await? {
            let text =
                format!("the VM needs the {kind} {name}, which the host has not: make it first");
            return Err(ClientError::Usage(text));
        }
    }
    Ok(there)
}

/// The VM, if it waits for the very disks that are to come.
async fn without_disks(client: &Client, spec: &VmSpec) -> Result<Option<Vm>, ClientError> {
    if spec.disks.is_empty() || !is_there(client, "vms", &spec.name).await? {
        return Ok(None);
    }
    let vm: Vm = client.get(&path("vms", spec.name.as_str())).await?;
    let names = |spec: &VmSpec| -> Vec<Name> {
        let disks = spec.disks.iter();
        disks.map(|entry| entry.disk.clone()).collect()
    };
    if vm.status.state.is_active() || names(&vm.spec) != names(spec) {
        return Ok(None);
    }
    for entry in &spec.disks {
        if is_there(client, "disks", &entry.disk).await? {
            return Ok(None);
        }
    }
    Ok(Some(vm))
}

async fn is_there(client: &Client, collection: &str, name: &Name) -> Result<bool, ClientError> {
    super::there::<Value>(client, &path(collection, name.as_str())).await
}

/// What has been made, to be taken back if not all can be.
struct Restoring<'a> {
    context: &'a Context,
    client: &'a Client,
    remote: Option<String>,
    made: Vec<String>,
}

impl Restoring<'_> {
    async fn make(
        &mut self,
        folder: &Folder,
        plan: &Plan<'_>,
        there: Option<Vm>,
    ) -> Result<Vm, ClientError> {
        for (entry, files) in plan.spec.disks.iter().zip(&plan.disks) {
            self.make_disk(folder, &entry.disk, files).await?;
        }
        let vm = match there {
            Some(vm) => vm,
            None => self.make_vm(&plan.spec).await?,
        };
        self.set_variables(&vm, &plan.variables).await?;
        Ok(vm)
    }

    async fn make_vm(&mut self, spec: &VmSpec) -> Result<Vm, ClientError> {
        let vm: Vm = self
            .client
            .send(Method::POST, "/v1/vms", spec, None)
            .await?;
        self.made.push(path("vms", vm.spec.name.as_str()));
        Ok(vm)
    }

    /// Else firmware would look for the system where it is on sticks only.
    async fn set_variables(&self, vm: &Vm, variables: &[VmVariable]) -> Result<(), ClientError> {
        let all = format!("{}/nvram", path("vms", vm.spec.name.as_str()));
        for variable in variables {
            let VmVariable { info, data } = variable;
            let name = encode_segment(&format!("{}-{}", info.name, info.guid));
            let set = VmVariableSet {
                data: data.clone(),
                attributes: Some(info.attributes),
            };
            let url = format!("{all}/{name}");
            let _: VmVariable = self.client.send(Method::PUT, &url, &set, None).await?;
        }
        Ok(())
    }

    async fn make_disk(
        &mut self,
        folder: &Folder,
        name: &Name,
        files: &[&DiskFile],
    ) -> Result<(), ClientError> {
        let Some((whole, changes)) = files.split_first() else {
            return Ok(());
        };
        let digits = Uuid::new_v4().simple().to_string();
        let image = self.target(&format!("restore-{}", &digits[..12]));
        let image_path = path("images", &image.name);
        let url = format!("/v1/images?name={}&kind=disk&format=qcow2", image.name);
        let file = folder.at(&whole.file);
        let _: Sent<Image> = send(self.context, &file, &image, &url, &image_path).await?;
        self.made.push(image_path.clone());
        let create = json!({"name": name, "image": image.name});
        let operation: Operation = self
            .client
            .send(Method::POST, "/v1/disks", &create, None)
            .await?;
        progress::follow(self.client, operation).await?;
        let disk_path = path("disks", name.as_str());
        self.made.push(disk_path.clone());
        let disk = self.target(name.as_str());
        for change in changes {
            let (file, url) = (folder.at(&change.file), format!("{disk_path}:apply"));
            let _: Sent<Disk> = send(self.context, &file, &disk, &url, &disk_path).await?;
        }
        self.made.retain(|made| *made != image_path);
        self.delete(&image_path).await;
        Ok(())
    }

    fn target(&self, name: &str) -> Target {
        Target {
            remote: self.remote.clone(),
            name: name.to_owned(),
        }
    }

    async fn undo(&mut self) {
        for made in std::mem::take(&mut self.made).into_iter().rev() {
            self.delete(&made).await;
        }
    }

    /// Deletes what is not needed. Should that fail, it is there to be seen.
    async fn delete(&self, made: &str) {
        if let Err(error) = self.client.delete(made).await {
            eprintln!("warning: {made} stays on the host: {error}");
        }
    }
}

fn told(context: &Context, vm: &Vm, backup: &Entry, plan: &Plan<'_>) -> Result<(), ClientError> {
    if context.format != Format::Table {
        return output::structured(context.format, vm);
    }
    for (entry, files) in plan.spec.disks.iter().zip(&plan.disks) {
        let bytes = files.iter().map(|file| file.bytes).sum();
        println!("{}: {} of {} files", entry.disk, Size(bytes), files.len());
    }
    let (number, at) = (backup.number, &backup.taken_at);
    println!("VM {} restored from backup {number} of {at}", vm.spec.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_vm_has_disks_and_addresses_of_its_own() {
        let mut spec: VmSpec = serde_json::from_value(json!({
            "name": "web",
            "nics": [{"network": "lan", "mac": "52:54:00:00:00:01"}],
            "disks": [{"disk": "root"}, {"disk": "data"}],
        }))
        .unwrap();
        make_another(&mut spec, "test").unwrap();
        let disks: Vec<_> = spec.disks.iter().map(|entry| entry.disk.as_str()).collect();
        assert_eq!(
            (spec.name.as_str(), disks),
            ("test", vec!["test-disk0", "test-disk1"])
        );
        assert_eq!(spec.nics[0].mac, None);
        assert!(make_another(&mut spec, "Not a name").is_err());
    }
}
