//! `lodge datastore`: where disks are.

use clap::Subcommand;
use http::Method;
use lodge_api::Size;
use lodge_api::datastore::{
    Datastore, DatastoreCreate, DatastoreKind, DatastorePatch, NFS_PORT, Nfs,
};
use lodge_api::operation::Operation;
use lodge_api::system::StorageHealth;
use lodge_client::{Client, ClientError};

use super::disk::parse_name;
use super::system_install::erase_allowed;
use super::{all, path};
use crate::context::Context;
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make one on a disk of the host, all of which it takes, or on an NFS server
    Create {
        /// [REMOTE:]NAME
        name: Target,
        /// Serial number of the disk, as `lodge system disks` shows it; the name of one without
        #[arg(long, required_unless_present_any = ["nfs", "directory"])]
        disk: Option<String>,
        /// SERVER:/PATH, a directory of an NFS server instead
        #[arg(long, conflicts_with = "disk", value_parser = parse_nfs)]
        nfs: Option<Nfs>,
        /// TCP port of the NFS server
        #[arg(long, default_value_t = NFS_PORT, requires = "nfs")]
        port: u16,
        /// Directory on an ordinary Linux host instead, which is empty
        #[arg(long, conflicts_with_all = ["disk", "nfs"])]
        directory: Option<String>,
        /// Erase what is on the disk without asking
        #[arg(long, conflicts_with_all = ["nfs", "directory", "adopt"])]
        erase: bool,
        /// Take over the datastore that is there, of another host or of this one before it was installed anew
        #[arg(long)]
        adopt: bool,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List datastores
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
    /// Rename
    Rename {
        /// [REMOTE:]NAME
        name: Target,
        /// The new name
        to: String,
    },
    /// Take all of a disk that has become larger
    Grow {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// Forget datastores with nothing on them; their disks stay as they are
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Create {
            name,
            disk,
            nfs,
            port,
            directory,
            erase,
            adopt,
            background,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let body = DatastoreCreate {
                name: parse_name(&name.name)?,
                erase: erase || wanted_blank(&client, disk.as_deref(), adopt).await?,
                disk,
                nfs: nfs.map(|nfs| Nfs { port, ..nfs }),
                directory,
                adopt,
            };
            let operation: Operation = client
                .send(Method::POST, "/v1/datastores", &body, None)
                .await?;
            let text = format!("Datastore {} created", body.name);
            context.finish(&client, operation, background, &text).await
        }
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            list(context, &client).await
        }
        Verb::Show { name } => {
            let client = context.client(name.remote.as_deref())?;
            let datastore: Datastore = client.get(&path("datastores", &name.name)).await?;
            output::object(context.format, &datastore, rows)
        }
        Verb::Rename { name, to } => {
            let client = context.client(name.remote.as_deref())?;
            let patch = DatastorePatch {
                name: Some(parse_name(&to)?),
            };
            let url = path("datastores", &name.name);
            let datastore: Datastore = client.send(Method::PATCH, &url, &patch, None).await?;
            let text = format!("Datastore {} is now {}", name.name, datastore.name);
            output::done(context.format, &text);
            Ok(())
        }
        Verb::Grow { name } => {
            let client = context.client(name.remote.as_deref())?;
            let url = format!("{}:grow", path("datastores", &name.name));
            let datastore: Datastore = client.post(&url).await?;
            let text = format!("Datastore {} has {}", datastore.name, datastore.size);
            output::done(context.format, &text);
            Ok(())
        }
        Verb::Delete { names } => {
            for name in &names {
                let client = context.client(name.remote.as_deref())?;
                client.delete(&path("datastores", &name.name)).await?;
                let text = format!("Datastore {} deleted; its disk is as it was", name.name);
                output::done(context.format, &text);
            }
            Ok(())
        }
    }
}

/// As everybody writes it. An IPv6 address is in brackets.
fn parse_nfs(text: &str) -> Result<Nfs, String> {
    let (server, path) = text
        .split_once(":/")
        .ok_or("give SERVER:/PATH, like nas.lab:/export/lodge")?;
    let bare = server
        .strip_prefix('[')
        .and_then(|server| server.strip_suffix(']'));
    Ok(Nfs {
        server: bare.unwrap_or(server).to_owned(),
        path: format!("/{path}"),
        port: NFS_PORT,
    })
}

/// Asks before a disk that is not blank is erased.
async fn wanted_blank(
    client: &Client,
    disk: Option<&str>,
    adopt: bool,
) -> Result<bool, ClientError> {
    match disk {
        Some(disk) if !adopt => erase_allowed(client, disk).await,
        _ => Ok(false),
    }
}

async fn list(context: &Context, client: &Client) -> Result<(), ClientError> {
    let datastores: Vec<Datastore> = all(client, "datastores", None).await?;
    let head = [
        "NAME",
        "ON",
        "SIZE",
        "FREE",
        "PROVISIONED",
        "DISKS",
        "HEALTH",
    ];
    output::list(context.format, &datastores, &head, |datastore| {
        vec![
            datastore.name.to_string(),
            on(datastore),
            datastore.size.to_string(),
            datastore.free.to_string(),
            provisioned(datastore),
            datastore.disks.to_string(),
            health(datastore.health).to_owned(),
        ]
    })
}

fn rows(datastore: &Datastore) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("Name", datastore.name.to_string()),
        ("Id", datastore.id.to_string()),
        ("On", on(datastore)),
        (
            "Device",
            datastore.device.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("Size", datastore.size.to_string()),
        ("Free", datastore.free.to_string()),
        ("Provisioned", provisioned(datastore)),
        ("Disks", datastore.disks.to_string()),
        (
            "Copies",
            if datastore.shares_extents {
                "instant".to_owned()
            } else {
                "take time and room".to_owned()
            },
        ),
        ("Health", health(datastore.health).to_owned()),
    ];
    if let Some(problem) = &datastore.problem {
        rows.push(("Problem", problem.clone()));
    }
    rows.push(("Created", datastore.created_at.to_string()));
    rows
}

fn on(datastore: &Datastore) -> String {
    let named = match datastore.kind {
        DatastoreKind::System => None,
        DatastoreKind::Disk => datastore.disk.as_ref().map(|disk| format!("disk {disk}")),
        DatastoreKind::Directory => datastore.directory.clone(),
        DatastoreKind::Nfs => datastore
            .nfs
            .as_ref()
            .map(|nfs| format!("nfs {}:{}", nfs.server, nfs.path)),
    };
    named.unwrap_or_else(|| datastore.kind.as_str().to_owned())
}

/// Also as a share of what there is: above 100 %, disks can run out of room before they are full.
fn provisioned(datastore: &Datastore) -> String {
    let (provisioned, size) = (datastore.provisioned.bytes(), datastore.size.bytes());
    match provisioned.saturating_mul(100).checked_div(size) {
        Some(percent) => format!("{} ({percent} %)", Size(provisioned)),
        None => Size(provisioned).to_string(),
    }
}

fn health(health: StorageHealth) -> &'static str {
    match health {
        StorageHealth::Sound => "sound",
        StorageHealth::Low => "nearly full",
        StorageHealth::ReadOnly => "read-only",
        StorageHealth::Failed => "failed",
        StorageHealth::Missing => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_their_directories_as_everybody_writes_them() {
        let nfs = parse_nfs("nas.lab:/export/lodge").unwrap();
        assert_eq!(
            (nfs.server.as_str(), nfs.path.as_str()),
            ("nas.lab", "/export/lodge")
        );
        let nfs = parse_nfs("[fd00::7]:/lodge").unwrap();
        assert_eq!(
            (nfs.server.as_str(), nfs.path.as_str()),
            ("fd00::7", "/lodge")
        );
        let nfs = parse_nfs("nas:/").unwrap();
        assert_eq!(nfs.path, "/");
        assert!(parse_nfs("nas").unwrap_err().contains("SERVER:/PATH"));
    }
}
