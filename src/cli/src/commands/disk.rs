//! `lodge disk`: virtual disks.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use http::Method;
use lodge_api::disk::{Disk, DiskCreate, DiskMove, DiskPatch};
use lodge_api::operation::Operation;
use lodge_api::{Name, Size};
use lodge_client::ClientError;

use super::export::{Export, export};
use super::image_upload::{Sent, send};
use super::{all, path};
use crate::context::{Context, ask};
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create an empty disk, or a copy of a disk image
    Create {
        /// [REMOTE:]NAME
        name: Target,
        /// Size, like 10GiB; with --image at least the image's
        #[arg(long, required_unless_present = "image")]
        size: Option<Size>,
        /// Disk image to copy
        #[arg(long)]
        image: Option<Name>,
        /// Datastore it is to be on, if not `default`
        #[arg(long)]
        datastore: Option<Name>,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List disks
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Show one in full
    Show {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// Make a disk larger; VMs that run with it are told, but not of disks on SATA
    #[command(visible_alias = "resize")]
    Grow {
        /// [REMOTE:]NAME
        name: Target,
        /// The new size
        size: Size,
    },
    /// Download, as raw, qcow2 or VMDK
    Export(Export),
    /// Write what changed to a disk that is as it was before, from a qcow2 of `snapshot export --since` or `vm backup`
    Apply {
        /// [REMOTE:]NAME
        name: Target,
        /// The file of changes
        file: PathBuf,
    },
    /// Move to another datastore, while no VM runs with it; snapshots stay where they are
    Move {
        /// [REMOTE:]NAME
        name: Target,
        /// Where it is to be
        datastore: Name,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// Delete with all data on it
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
            name,
            size,
            image,
            datastore,
            background,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let body = DiskCreate {
                name: parse_name(&name.name)?,
                size,
                image,
                datastore,
            };
            let operation: Operation = client.send(Method::POST, "/v1/disks", &body, None).await?;
            let text = format!("Disk {} created", name.name);
            context.finish(&client, operation, background, &text).await
        }
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let disks: Vec<Disk> = all(&client, "disks", None).await?;
            output::list(
                context.format,
                &disks,
                &["NAME", "SIZE", "ALLOCATED", "DATASTORE", "USED BY"],
                |disk| {
                    vec![
                        disk.name.to_string(),
                        disk.size.to_string(),
                        disk.allocated.to_string(),
                        disk.datastore.to_string(),
                        users(disk),
                    ]
                },
            )
        }
        Verb::Show { name } => {
            let client = context.client(name.remote.as_deref())?;
            let disk: Disk = client.get(&path("disks", &name.name)).await?;
            output::object(context.format, &disk, |disk| {
                vec![
                    ("Name", disk.name.to_string()),
                    ("Id", disk.id.to_string()),
                    ("Size", disk.size.to_string()),
                    ("Allocated", disk.allocated.to_string()),
                    ("Datastore", disk.datastore.to_string()),
                    ("Used by", users(disk)),
                    ("Created", disk.created_at.to_string()),
                ]
            })
        }
        Verb::Grow { name, size } => {
            let client = context.client(name.remote.as_deref())?;
            let patch = DiskPatch {
                size: Some(size),
                ..DiskPatch::default()
            };
            let disk: Disk = client
                .send(Method::PATCH, &path("disks", &name.name), &patch, None)
                .await?;
            output::done(
                context.format,
                &format!("Disk {} is now {}", disk.name, disk.size),
            );
            Ok(())
        }
        Verb::Move {
            name,
            datastore,
            background,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let url = format!("{}:move", path("disks", &name.name));
            let text = format!("Disk {} is on datastore {datastore} now", name.name);
            let body = DiskMove { datastore };
            let operation: Operation = client.send(Method::POST, &url, &body, None).await?;
            context.finish(&client, operation, background, &text).await
        }
        Verb::Export(arguments) => export(context, "disks", arguments).await,
        Verb::Apply { name, file } => apply(context, &name, &file).await,
        Verb::Delete { names, yes } => delete(context, &names, yes).await,
    }
}

async fn delete(context: &Context, targets: &[Target], yes: bool) -> Result<(), ClientError> {
    for target in targets {
        let client = context.client(target.remote.as_deref())?;
        let url = path("disks", &target.name);
        let disk: Disk = client.get(&url).await?;
        let question = format!(
            "Delete disk {} ({}) and all data on it? [y/N] ",
            disk.name, disk.size
        );
        if !yes && ask(&question)? != "y" {
            return Err(ClientError::Usage("nothing was deleted".to_owned()));
        }
        client.delete(&url).await?;
        output::done(context.format, &format!("Disk {} deleted", disk.name));
    }
    Ok(())
}

fn users(disk: &Disk) -> String {
    disk.used_by
        .iter()
        .map(Name::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A name checked here already, for a quicker and equal answer.
pub(super) fn parse_name(text: &str) -> Result<Name, ClientError> {
    text.parse()
        .map_err(|error: lodge_api::NameError| ClientError::Usage(error.to_string()))
}

async fn apply(context: &Context, name: &Target, file: &Path) -> Result<(), ClientError> {
    let object = path("disks", &name.name);
    let url = format!("{object}:apply");
    let sent: Sent<Disk> = send(context, file, name, &url, &object).await?;
    if context.format != output::Format::Table {
        return output::structured(context.format, &sent.answer);
    }
    println!("Changes applied to disk {}", sent.answer.name);
    Ok(())
}
