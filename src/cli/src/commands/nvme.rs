//! `lodge nvme`: disks of other machines, and disks of a host for others.

use std::net::IpAddr;

use clap::Subcommand;
use http::Method;
use lodge_api::nvme::{
    Anybody, NvmeConnect, NvmeConnection, NvmeExport, NvmeExportCreate, NvmeHosts, NvmeOffers, PORT,
};
use lodge_api::operation::Operation;
use lodge_client::{Client, ClientError};

use super::disk::parse_name;
use super::system_install::erase_allowed;
use super::{all, path};
use crate::context::Context;
use crate::output;
use crate::target::{RemoteName, Target};

/// Partition of disks that are or were exported, as `contents` of disks show it.
const EXPORTED: &str = "\"lodge-export\"";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List what another machine offers to the host
    #[command(after_help = "Example: lodge nvme discover 10.0.0.5 lab:")]
    Discover {
        /// IP address of the other machine
        address: IpAddr,
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Its TCP port
        #[arg(long, default_value_t = PORT)]
        port: u16,
    },
    /// Have the host use the disks of a subsystem of another machine, now and whenever it starts
    #[command(
        after_help = "Example: lodge nvme connect lab:archive --address 10.0.0.5 --nqn nqn.2014-08.org.nvmexpress:uuid:…"
    )]
    Connect {
        /// [REMOTE:]NAME to know the connection by
        name: Target,
        /// IP address of the other machine
        #[arg(long)]
        address: IpAddr,
        /// Its TCP port
        #[arg(long, default_value_t = PORT)]
        port: u16,
        /// Name of the subsystem, as `lodge nvme discover` shows it
        #[arg(long)]
        nqn: String,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List connections
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Show a connection in full
    Show {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// End connections whose disks are not used
    Disconnect {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
    /// Let other machines use a disk of the host, now and whenever it starts
    #[command(
        after_help = "Example: lodge nvme export lab:shared --disk S4EWNX0N1234 --allow nqn.2014-08.org.nvmexpress:uuid:…\n`lodge system show` of another host shows its name."
    )]
    Export {
        /// [REMOTE:]NAME to know the export by
        name: Target,
        /// Serial number of the disk, as `lodge system disks` shows it; the name of one without
        #[arg(long)]
        disk: String,
        /// Name (NQN) of a host that may use it; give it again for more
        #[arg(
            long = "allow",
            value_name = "NQN",
            required_unless_present = "allow_any"
        )]
        allow: Vec<String>,
        /// Everybody who reaches the host may use it
        #[arg(long, conflicts_with = "allow")]
        allow_any: bool,
        /// IP address of the host to listen on, instead of all of IPv4
        #[arg(long)]
        address: Option<IpAddr>,
        /// Erase what is on the disk without asking, also what others had on it
        #[arg(long)]
        erase: bool,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List exports
    Exports {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Let other machines use disks no longer, which they lose at once; what they have on them stays
    Unexport {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Discover {
            address,
            remote,
            port,
        } => discover(context, remote.as_ref(), address, port).await,
        Verb::Connect {
            name,
            address,
            port,
            nqn,
            background,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let body = NvmeConnect {
                name: Some(parse_name(&name.name)?),
                address,
                port,
                nqn,
            };
            let url = "/v1/nvme-connections";
            let operation: Operation = client.send(Method::POST, url, &body, None).await?;
            let text = format!(
                "Connected as {}; `lodge system disks` shows what is there",
                name.name
            );
            context.finish(&client, operation, background, &text).await
        }
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            list(context, &client).await
        }
        Verb::Show { name } => {
            let client = context.client(name.remote.as_deref())?;
            let url = path("nvme-connections", &name.name);
            let connection: NvmeConnection = client.get(&url).await?;
            output::object(context.format, &connection, rows)
        }
        Verb::Disconnect { names } => {
            let done = |name: &str| format!("Connection {name} ended");
            remove(context, &names, "nvme-connections", done).await
        }
        Verb::Export {
            name,
            disk,
            allow,
            allow_any,
            address,
            erase,
            background,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let body = NvmeExportCreate {
                name: Some(parse_name(&name.name)?),
                erase: erase || erase_wanted(&client, &disk).await?,
                disk,
                allowed_hosts: match allow_any {
                    true => NvmeHosts::Any(Anybody::Any),
                    false => NvmeHosts::These(allow),
                },
                address,
            };
            let url = "/v1/nvme-exports";
            let operation: Operation = client.send(Method::POST, url, &body, None).await?;
            let text = format!(
                "Exported as {}; `lodge nvme exports` shows its NQN",
                name.name
            );
            context.finish(&client, operation, background, &text).await
        }
        Verb::Exports { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            exports(context, &client).await
        }
        Verb::Unexport { names } => {
            let done =
                |name: &str| format!("Export {name} ended; what is on its disk is as it was");
            remove(context, &names, "nvme-exports", done).await
        }
    }
}

async fn discover(
    context: &Context,
    remote: Option<&RemoteName>,
    address: IpAddr,
    port: u16,
) -> Result<(), ClientError> {
    let client = context.client(remote.map(|name| name.0.as_str()))?;
    let url = format!("/v1/nvme-connections:discover?address={address}&port={port}");
    let offers: NvmeOffers = client.get(&url).await?;
    let disks = offers.items.iter().filter(|offer| !offer.discovery);
    let disks: Vec<_> = disks.collect();
    if disks.is_empty() {
        eprintln!(
            "Nothing is offered to this host, whose name is {}",
            offers.host_nqn
        );
    }
    output::list(
        context.format,
        &disks,
        &["NQN", "TRANSPORT", "ADDRESS", "PORT"],
        |offer| {
            vec![
                offer.nqn.clone(),
                offer.transport.clone(),
                offer.address.clone(),
                offer.port.clone(),
            ]
        },
    )
}

async fn list(context: &Context, client: &Client) -> Result<(), ClientError> {
    let connections: Vec<NvmeConnection> = all(client, "nvme-connections", None).await?;
    output::list(
        context.format,
        &connections,
        &["NAME", "ADDRESS", "STATE", "DISKS", "NQN"],
        |connection| {
            vec![
                connection.name.to_string(),
                endpoint(connection.address, connection.port),
                connection.state.as_str().to_owned(),
                connection.disks.join(", "),
                connection.nqn.clone(),
            ]
        },
    )
}

async fn exports(context: &Context, client: &Client) -> Result<(), ClientError> {
    let exports: Vec<NvmeExport> = all(client, "nvme-exports", None).await?;
    output::list(
        context.format,
        &exports,
        &["NAME", "DISK", "ADDRESS", "STATE", "ALLOWED", "NQN"],
        |export| {
            vec![
                export.name.to_string(),
                export.disk.clone(),
                endpoint(export.address, export.port),
                match &export.problem {
                    None if export.active => "active".to_owned(),
                    None => "-".to_owned(),
                    Some(problem) => problem.clone(),
                },
                match &export.allowed_hosts {
                    NvmeHosts::These(hosts) => hosts.join(", "),
                    NvmeHosts::Any(_) => "any host".to_owned(),
                },
                export.nqn.clone(),
            ]
        },
    )
}

async fn remove(
    context: &Context,
    names: &[Target],
    collection: &str,
    done: impl Fn(&str) -> String,
) -> Result<(), ClientError> {
    for name in names {
        let client = context.client(name.remote.as_deref())?;
        client.delete(&path(collection, &name.name)).await?;
        output::done(context.format, &done(&name.name));
    }
    Ok(())
}

/// Asks before a disk that is not blank is erased. One that was exported before is not.
async fn erase_wanted(client: &Client, disk: &str) -> Result<bool, ClientError> {
    let disks = super::system_install::list(client).await?;
    let found = disks.iter().find(|found| found.identity() == disk);
    let kept = found.is_some_and(
        |found| matches!(found.contents.as_slice(), [only] if only.contains(EXPORTED)),
    );
    match kept {
        true => Ok(false),
        false => erase_allowed(client, disk).await,
    }
}

fn rows(connection: &NvmeConnection) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("Name", connection.name.to_string()),
        ("Id", connection.id.to_string()),
        ("Address", endpoint(connection.address, connection.port)),
        ("NQN", connection.nqn.clone()),
        ("State", connection.state.as_str().to_owned()),
    ];
    if let Some(reason) = &connection.reason {
        rows.push(("Reason", reason.clone()));
    }
    rows.push(("Disks", connection.disks.join(", ")));
    rows.push(("Created", connection.created_at.to_string()));
    rows
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
