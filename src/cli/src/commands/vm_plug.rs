//! `lodge vm disk` and `lodge vm nic`: devices that come and go and are limited, also while the VM runs.

use clap::{Args, Subcommand};
use http::Method;
use lodge_api::Name;
use lodge_api::operation::Operation;
use lodge_api::vm::{Vm, VmDetach};
use lodge_client::{Client, ClientError};
use serde_json::{Value, json};

use super::path;
use super::vm_limits::{self, DiskChanges, NicChanges};
use super::vm_settings::{disk, nic};
use crate::context::Context;
use crate::output;
use crate::target::Target;

#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    /// Add a disk, at once if the VM runs; only virtio disks come to a VM that runs
    Add {
        /// [REMOTE:]NAME of the VM
        name: Target,
        /// The disk, like data, data:ro (read-only), data:nvme or data:sata (not on virtio)
        #[arg(
            value_name = "DISK[:ro][:nvme|:sata][:iops=COUNT][:bandwidth=SIZE][:on_error=report]"
        )]
        disk: String,
    },
    /// Limit what the VM does with a disk, or say what happens when it fails, at once if the VM runs; what is not given stays
    #[command(
        after_help = "Reads and writes count together. A VM whose requests wait too long gives them up, so keep limits above what
it needs to live.

Example: lodge vm disk set web data --iops 500 --bandwidth 50MiB
         lodge vm disk set web data --iops none
         lodge vm disk set web data --on-error report"
    )]
    Set {
        /// [REMOTE:]NAME of the VM
        name: Target,
        /// The disk
        disk: Name,
        #[command(flatten)]
        changes: DiskChanges,
    },
    /// Remove a disk; a VM that runs is asked to let it go. The disk stays, with all data on it
    #[command(visible_alias = "rm")]
    Remove {
        /// [REMOTE:]NAME of the VM
        name: Target,
        /// The disk
        disk: Name,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NicVerb {
    /// Add a network interface, at once if the VM runs; only virtio interfaces come to a VM that runs
    Add {
        /// [REMOTE:]NAME of the VM
        name: Target,
        /// Its network, like lan, lan,52:54:00:12:34:56, lan,e1000e (an Intel card, not virtio) or lan,queues=4 (so many pairs of queues, at
        /// most one for each virtual CPU)
        #[arg(
            value_name = "NETWORK[,MAC][,e1000e][,queues=COUNT]",
            default_value = "default"
        )]
        nic: String,
    },
    /// Limit what a network interface moves, or pull its cable, at once if the VM runs; what is not given stays
    #[command(after_help = "Examples:
  lodge vm nic set web 52:54:00:12:34:56 --receive 100 --transmit 50
  lodge vm nic set web 52:54:00:12:34:56 --link down")]
    Set {
        /// [REMOTE:]NAME of the VM
        name: Target,
        /// Its MAC address, which `lodge vm show` tells
        mac: String,
        #[command(flatten)]
        changes: NicChanges,
    },
    /// Remove a network interface; a VM that runs is asked to let it go
    #[command(visible_alias = "rm")]
    Remove {
        /// [REMOTE:]NAME of the VM
        name: Target,
        /// Its MAC address, which `lodge vm show` tells
        mac: String,
        #[command(flatten)]
        how: How,
    },
}

/// How a device leaves a VM that runs.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Seconds the VM has to let it go
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// Take it out at once, as if it was pulled; what the VM had not written yet is lost
    #[arg(long)]
    force: bool,
    /// Print the operation and return at once
    #[arg(long)]
    background: bool,
}

impl How {
    fn body(&self) -> VmDetach {
        VmDetach {
            timeout_s: Some(self.timeout),
            force: self.force,
            ..VmDetach::default()
        }
    }
}

pub(super) async fn run_disk(context: &Context, verb: DiskVerb) -> Result<(), ClientError> {
    match verb {
        DiskVerb::Add { name, disk: text } => {
            let body = json!({"disk": disk(&text)});
            let vm = attach(context, &name, &body).await?;
            let disk = vm.spec.disks.last().map(|disk| disk.disk.to_string());
            told(context, &vm, "disk", &disk.unwrap_or_default());
            Ok(())
        }
        DiskVerb::Set {
            name,
            disk,
            changes,
        } => change_disk(context, &name, &disk, &changes).await,
        DiskVerb::Remove { name, disk, how } => {
            let text = format!("VM {}: disk {disk} removed", name.name);
            let body = VmDetach {
                disk: Some(disk),
                ..how.body()
            };
            detach(context, &name, &body, how.background, &text).await
        }
    }
}

pub(super) async fn run_nic(context: &Context, verb: NicVerb) -> Result<(), ClientError> {
    match verb {
        NicVerb::Add { name, nic: text } => {
            let body = json!({"nic": nic(&text)});
            let vm = attach(context, &name, &body).await?;
            let mac = vm.spec.nics.last().and_then(|nic| nic.mac.clone());
            told(context, &vm, "network interface", &mac.unwrap_or_default());
            Ok(())
        }
        NicVerb::Set { name, mac, changes } => change_nic(context, &name, &mac, &changes).await,
        NicVerb::Remove { name, mac, how } => {
            let text = format!("VM {}: network interface {mac} removed", name.name);
            let body = VmDetach {
                nic: Some(mac),
                ..how.body()
            };
            detach(context, &name, &body, how.background, &text).await
        }
    }
}

async fn change_disk(
    context: &Context,
    target: &Target,
    disk: &Name,
    changes: &DiskChanges,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let vm: Vm = client.get(&path("vms", &target.name)).await?;
    let mut disks = vm.spec.disks.clone();
    let Some(entry) = disks.iter_mut().find(|entry| entry.disk == *disk) else {
        let text = format!("the VM {} has no disk {disk}", vm.spec.name);
        return Err(ClientError::Usage(text));
    };
    changes.apply(entry);
    let now = or_nothing(vm_limits::disk_settings(entry), " has no limits");
    let what = format!("disk {disk}");
    let body = json!({"disks": disks});
    send(context, &client, &vm, &body, &what, &now).await
}

async fn change_nic(
    context: &Context,
    target: &Target,
    mac: &str,
    changes: &NicChanges,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let vm: Vm = client.get(&path("vms", &target.name)).await?;
    let mut nics = vm.spec.nics.clone();
    let wanted = mac.to_ascii_lowercase();
    let mut entries = nics.iter_mut();
    let Some(entry) = entries.find(|nic| nic.mac.as_ref() == Some(&wanted)) else {
        let name = &vm.spec.name;
        let text = format!("the VM {name} has no network interface {mac}");
        return Err(ClientError::Usage(text));
    };
    changes.apply(entry);
    let now = or_nothing(
        vm_limits::nic_settings(entry),
        " has no limits, and its link is up",
    );
    let what = format!("network interface {wanted}");
    let body = json!({"nics": nics});
    send(context, &client, &vm, &body, &what, &now).await
}

/// What something has now, or that it is nothing special.
fn or_nothing(settings: String, nothing: &str) -> String {
    match settings.is_empty() {
        true => nothing.to_owned(),
        false => settings,
    }
}

/// Sends all devices of a kind, of which one is another now: whoever changed them meanwhile was faster.
async fn send(
    context: &Context,
    client: &Client,
    vm: &Vm,
    body: &Value,
    what: &str,
    now: &str,
) -> Result<(), ClientError> {
    let url = path("vms", vm.spec.name.as_str());
    let tag = format!("\"{}\"", vm.revision);
    let vm: Vm = client.send(Method::PATCH, &url, body, Some(&tag)).await?;
    let text = format!("VM {}: {what}{now}", vm.spec.name);
    output::done(context.format, &text);
    Ok(())
}

fn told(context: &Context, vm: &Vm, what: &str, which: &str) {
    let name = &vm.spec.name;
    output::done(context.format, &format!("VM {name}: {what} {which} added"));
}

async fn attach(context: &Context, target: &Target, body: &Value) -> Result<Vm, ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let url = format!("{}:attach", path("vms", &target.name));
    client.send(Method::POST, &url, body, None).await
}

async fn detach(
    context: &Context,
    target: &Target,
    body: &VmDetach,
    background: bool,
    text: &str,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let url = format!("{}:detach", path("vms", &target.name));
    let operation: Operation = client.send(Method::POST, &url, body, None).await?;
    context.finish(&client, operation, background, text).await
}
