//! `lodge snapshot`: what guests were at one moment.

use clap::Subcommand;
use http::Method;
use lodge_api::Name;
use lodge_api::operation::Operation;
use lodge_api::snapshot::{Snapshot, SnapshotClone, SnapshotCreate, VmRevert};
use lodge_client::ClientError;

use super::export::{ExportSnapshot, export_snapshot};
use super::{all, path};
use crate::context::{Context, ask};
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take one of a VM: its disks, and its memory if it runs
    Create {
        /// [REMOTE:]VM
        vm: Target,
        /// Name of the snapshot
        name: Name,
        /// Free text
        #[arg(long, default_value = "")]
        description: String,
        /// The disks only, as after a power cut
        #[arg(long)]
        no_memory: bool,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List snapshots
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Only those for which this holds, e.g. 'vm eq web'
        #[arg(long)]
        filter: Option<String>,
    },
    /// Show one in full
    Show {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// Take a stopped VM back to a snapshot of it; with memory it goes on from there
    Revert {
        /// [REMOTE:]VM
        vm: Target,
        /// The snapshot
        snapshot: Name,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a new VM of a snapshot; with memory it starts at once, where the other was
    Clone {
        /// [REMOTE:]SNAPSHOT
        snapshot: Target,
        /// Name of the new VM
        name: Name,
        /// Leave the memory aside: the new VM is stopped and boots from its disks
        #[arg(long)]
        cold: bool,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// Download; FILE.ova gets the VM, another file one of its disks as raw, qcow2 or VMDK. Memory stays behind
    Export(ExportSnapshot),
    /// Delete; VMs that were made of it stay
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Create {
            vm,
            name,
            description,
            no_memory,
            background,
        } => {
            let client = context.client(vm.remote.as_deref())?;
            let text = format!("Snapshot {name} of VM {} taken", vm.name);
            let body = SnapshotCreate {
                name,
                description,
                memory: no_memory.then_some(false),
            };
            let path = format!("{}:snapshot", path("vms", &vm.name));
            let operation: Operation = client.send(Method::POST, &path, &body, None).await?;
            context.finish(&client, operation, background, &text).await
        }
        Verb::List { remote, filter } => list(context, remote, filter.as_deref()).await,
        Verb::Show { name } => show(context, &name).await,
        Verb::Revert { vm, snapshot, yes } => revert(context, &vm, &snapshot, yes).await,
        Verb::Clone {
            snapshot,
            name,
            cold,
            background,
        } => {
            let client = context.client(snapshot.remote.as_deref())?;
            let text = format!("VM {name} made of snapshot {}", snapshot.name);
            let body = SnapshotClone { name, cold };
            let path = format!("{}:clone", path("snapshots", &snapshot.name));
            let operation: Operation = client.send(Method::POST, &path, &body, None).await?;
            context.finish(&client, operation, background, &text).await
        }
        Verb::Export(arguments) => export_snapshot(context, arguments).await,
        Verb::Delete { names, yes } => delete(context, &names, yes).await,
    }
}

async fn list(
    context: &Context,
    remote: Option<RemoteName>,
    filter: Option<&str>,
) -> Result<(), ClientError> {
    let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
    let snapshots: Vec<Snapshot> = all(&client, "snapshots", filter).await?;
    output::list(
        context.format,
        &snapshots,
        &["NAME", "VM", "MEMORY", "ALLOCATED", "TAKEN"],
        |snapshot| {
            vec![
                snapshot.name.to_string(),
                snapshot.vm.to_string(),
                yes_or_no(snapshot.memory),
                snapshot.allocated.to_string(),
                snapshot.created_at.to_string(),
            ]
        },
    )
}

async fn show(context: &Context, target: &Target) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let snapshot: Snapshot = client.get(&path("snapshots", &target.name)).await?;
    output::object(context.format, &snapshot, |snapshot| {
        let disks = snapshot.spec.disks.iter().map(|disk| disk.disk.as_str());
        vec![
            ("Name", snapshot.name.to_string()),
            ("Id", snapshot.id.to_string()),
            ("Description", snapshot.description.clone()),
            ("VM", snapshot.vm.to_string()),
            ("By schedule", yes_or_no(snapshot.scheduled)),
            ("Memory", yes_or_no(snapshot.memory)),
            ("vCPUs", snapshot.spec.vcpus.to_string()),
            ("Size of memory", snapshot.spec.memory.to_string()),
            ("Disks", disks.collect::<Vec<_>>().join(", ")),
            ("Allocated", snapshot.allocated.to_string()),
            ("Taken", snapshot.created_at.to_string()),
        ]
    })
}

async fn revert(
    context: &Context,
    vm: &Target,
    snapshot: &Name,
    yes: bool,
) -> Result<(), ClientError> {
    let client = context.client(vm.remote.as_deref())?;
    let question = format!(
        "Take VM {} back to {snapshot}? What was changed since is lost. [y/N] ",
        vm.name
    );
    if !yes && ask(&question)? != "y" {
        return Err(ClientError::Usage("nothing was changed".to_owned()));
    }
    let body = VmRevert {
        snapshot: snapshot.to_string(),
    };
    let path = format!("{}:revert", path("vms", &vm.name));
    let operation: Operation = client.send(Method::POST, &path, &body, None).await?;
    let text = format!("VM {} is what it was in {snapshot}", vm.name);
    context.finish(&client, operation, false, &text).await
}

async fn delete(context: &Context, targets: &[Target], yes: bool) -> Result<(), ClientError> {
    for target in targets {
        let client = context.client(target.remote.as_deref())?;
        let url = path("snapshots", &target.name);
        let snapshot: Snapshot = client.get(&url).await?;
        let question = format!(
            "Delete snapshot {} of VM {}? [y/N] ",
            snapshot.name, snapshot.vm
        );
        if !yes && ask(&question)? != "y" {
            return Err(ClientError::Usage("nothing was deleted".to_owned()));
        }
        client.delete(&url).await?;
        output::done(
            context.format,
            &format!("Snapshot {} deleted", snapshot.name),
        );
    }
    Ok(())
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
