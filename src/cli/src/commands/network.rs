//! `lodge network`: networks guests attach to.

use clap::Subcommand;
use http::Method;
use lodge_api::Name;
use lodge_api::network::{Network, NetworkCreate};
use lodge_client::ClientError;

use super::disk::parse_name;
use super::{all, path};
use crate::context::Context;
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a network
    Create {
        /// [REMOTE:]NAME
        name: Target,
        /// MAC address of the host's NIC behind it; without it guests reach each other only
        #[arg(long)]
        uplink: Option<String>,
    },
    /// List networks
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
    /// Delete
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Create { name, uplink } => {
            let client = context.client(name.remote.as_deref())?;
            let body = NetworkCreate {
                name: parse_name(&name.name)?,
                uplink,
            };
            let network: Network = client
                .send(Method::POST, "/v1/networks", &body, None)
                .await?;
            output::done(context.format, &format!("Network {} created", network.name));
            Ok(())
        }
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let networks: Vec<Network> = all(&client, "networks", None).await?;
            let head = [
                "NAME",
                "BRIDGE",
                "UPLINK",
                "CARRIER",
                "ADDRESSES",
                "USED BY",
            ];
            output::list(context.format, &networks, &head, |network| {
                vec![
                    network.name.to_string(),
                    network.bridge.clone(),
                    network.uplink.clone().unwrap_or_else(|| "-".to_owned()),
                    carrier(network),
                    network.addresses.join(" "),
                    users(network),
                ]
            })
        }
        Verb::Show { name } => {
            let client = context.client(name.remote.as_deref())?;
            let network: Network = client.get(&path("networks", &name.name)).await?;
            output::object(context.format, &network, |network| {
                vec![
                    ("Name", network.name.to_string()),
                    ("Id", network.id.to_string()),
                    ("Bridge", network.bridge.clone()),
                    (
                        "Uplink",
                        network.uplink.clone().unwrap_or_else(|| "-".to_owned()),
                    ),
                    ("Carrier", carrier(network)),
                    ("Addresses", network.addresses.join(" ")),
                    ("Used by", users(network)),
                ]
            })
        }
        Verb::Delete { names } => {
            for name in &names {
                let client = context.client(name.remote.as_deref())?;
                client.delete(&path("networks", &name.name)).await?;
                output::done(context.format, &format!("Network {} deleted", name.name));
            }
            Ok(())
        }
    }
}

fn carrier(network: &Network) -> String {
    if network.carrier { "yes" } else { "no" }.to_owned()
}

fn users(network: &Network) -> String {
    network
        .used_by
        .iter()
        .map(Name::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
