//! `lodge backup`: backups that hosts make by themselves.

use clap::Subcommand;
use http::Method;
use lodge_api::Name;
use lodge_api::backup::{Backup, BackupRestore, BackupVerify, VmBackup};
use lodge_api::operation::Operation;
use lodge_client::{Client, ClientError, encode_segment};

use super::{all, backup_target, path};
use crate::context::{Context, ask};
use crate::output::{self, Format};
use crate::progress;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Where backups are written to
    #[command(subcommand)]
    Target(backup_target::Verb),
    /// Back a VM up: all of its disks the first time, and then what changed
    Create {
        /// [REMOTE:]VM
        vm: Target,
        /// The target
        #[arg(long = "to", value_name = "TARGET")]
        target: String,
        /// Write all of the disks, also where only what changed since the last backup would do
        #[arg(long)]
        full: bool,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List backups
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Only those on this target
        #[arg(long)]
        target: Option<String>,
        /// Only those of this VM
        #[arg(long)]
        vm: Option<String>,
    },
    /// Show one in full
    Show {
        /// [REMOTE:]ID
        id: Target,
    },
    /// Delete; those that others are made of only with them
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]ID, one or several
        #[arg(required = true)]
        ids: Vec<Target>,
        /// Delete those that are made of it as well
        #[arg(long)]
        with_later: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a VM of one: the one that it was, or another one
    Restore {
        /// [REMOTE:]ID
        id: Target,
        /// Name of another VM, with disks and addresses of its own; without, the one that it was, which must be gone
        name: Option<Name>,
        /// Where its disks will be [default]
        #[arg(long)]
        datastore: Option<Name>,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// See whether one is good: whether its files are what was written
    Verify {
        /// [REMOTE:]ID
        id: Target,
        /// Also boot a VM of it, with its cables pulled, until its system shows a sign of life; it is removed afterwards
        #[arg(long)]
        boot: bool,
        /// Seconds that the sign may take [300]
        #[arg(long, requires = "boot")]
        timeout: Option<u32>,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Target(verb) => backup_target::run(context, verb).await,
        Verb::Create {
            vm,
            target,
            full,
            background,
        } => {
            let client = context.client(vm.remote.as_deref())?;
            let url = format!("{}:backup", path("vms", &vm.name));
            let body = VmBackup { target, full };
            let operation: Operation = client.send(Method::POST, &url, &body, None).await?;
            if background {
                return context.finish(&client, operation, true, "").await;
            }
            let ended = progress::follow(&client, operation).await?;
            if context.format != Format::Table {
                return output::structured(context.format, &ended);
            }
            for line in &ended.log {
                println!("{line}");
            }
            println!("VM {} backed up to {}", vm.name, body.target);
            Ok(())
        }
        Verb::List { remote, target, vm } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            list(context, &client, target.as_deref(), vm.as_deref()).await
        }
        Verb::Show { id } => {
            let client = context.client(id.remote.as_deref())?;
            let backup: Backup = client.get(&path("backups", &id.name)).await?;
            output::object(context.format, &backup, rows)
        }
        Verb::Delete {
            ids,
            with_later,
            yes,
        } => delete(context, &ids, with_later, yes).await,
        Verb::Restore {
            id,
            name,
            datastore,
            background,
        } => {
            let client = context.client(id.remote.as_deref())?;
            let own = path("backups", &id.name);
            let backup: Backup = client.get(&own).await?;
            let vm = name.clone().unwrap_or(backup.vm);
            let body = BackupRestore { name, datastore };
            let url = format!("{own}:restore");
            let operation: Operation = client.send(Method::POST, &url, &body, None).await?;
            let (number, at) = (backup.number, backup.taken_at);
            let text = format!("VM {vm} restored from backup {number} of {at}");
            context.finish(&client, operation, background, &text).await
        }
        Verb::Verify {
            id,
            boot,
            timeout,
            background,
        } => {
            let client = context.client(id.remote.as_deref())?;
            let own = path("backups", &id.name);
            let body = BackupVerify {
                boot,
                timeout_s: timeout,
            };
            let url = format!("{own}:verify");
            let operation: Operation = client.send(Method::POST, &url, &body, None).await?;
            if background {
                return context.finish(&client, operation, true, "").await;
            }
            progress::follow(&client, operation).await?;
            let backup: Backup = client.get(&own).await?;
            if context.format != Format::Table {
                return output::structured(context.format, &backup);
            }
            let found = backup.verification.unwrap_or_default();
            println!("Backup {} of {} is good: {found}", backup.number, backup.vm);
            Ok(())
        }
    }
}

async fn list(
    context: &Context,
    client: &Client,
    target: Option<&str>,
    vm: Option<&str>,
) -> Result<(), ClientError> {
    let given = [("target", target), ("vm", vm)].into_iter();
    let given =
        given.filter_map(|(name, value)| Some(format!("{name}={}", encode_segment(value?))));
    let given: Vec<String> = given.collect();
    let collection = match given.as_slice() {
        [] => "backups".to_owned(),
        given => format!("backups?{}", given.join("&")),
    };
    let backups: Vec<Backup> = all(client, &collection, None).await?;
    let head = [
        "ID", "VM", "NUMBER", "TARGET", "TAKEN", "SIZE", "MADE OF", "VERIFIED",
    ];
    output::list(context.format, &backups, &head, |backup| {
        vec![
            backup.id.to_string(),
            backup.vm.to_string(),
            backup.number.to_string(),
            backup.target.to_string(),
            backup.taken_at.to_string(),
            backup.size.to_string(),
            made_of(backup),
            verified(backup),
        ]
    })
}

async fn delete(
    context: &Context,
    ids: &[Target],
    with_later: bool,
    yes: bool,
) -> Result<(), ClientError> {
    for id in ids {
        let client = context.client(id.remote.as_deref())?;
        let own = path("backups", &id.name);
        let backup: Backup = client.get(&own).await?;
        let (number, vm, target) = (backup.number, backup.vm, backup.target);
        let more = if with_later {
            ", with those made of it"
        } else {
            ""
        };
        let question = format!("delete backup {number} of {vm} on {target}{more}? [y/N] ");
        if !yes && !matches!(ask(&question)?.as_str(), "y" | "yes") {
            return Err(ClientError::Usage("nothing was deleted".to_owned()));
        }
        let url = format!("{own}?with_later={with_later}");
        let operation: Operation = client.delete_answered(&url).await?;
        let text = format!("Backup {number} of {vm} deleted");
        context.finish(&client, operation, false, &text).await?;
    }
    Ok(())
}

fn made_of(backup: &Backup) -> String {
    let numbers: Vec<String> = backup.made_of.iter().map(u32::to_string).collect();
    numbers.join(", ")
}

fn verified(backup: &Backup) -> String {
    match (backup.verified, backup.verified_at) {
        (Some(true), Some(at)) => format!("good, {at}"),
        (Some(false), Some(at)) => format!("BAD, {at}"),
        _ => "-".to_owned(),
    }
}

fn rows(backup: &Backup) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("Id", backup.id.to_string()),
        ("VM", backup.vm.to_string()),
        ("VM id", backup.vm_id.to_string()),
        ("Target", backup.target.to_string()),
        ("Folder", backup.folder.clone()),
        ("Number", backup.number.to_string()),
        ("Taken", backup.taken_at.to_string()),
        ("Size", backup.size.to_string()),
        ("Made of", made_of(backup)),
        ("Verified", verified(backup)),
    ];
    rows.extend(backup.verification.clone().map(|found| ("Found", found)));
    rows
}
