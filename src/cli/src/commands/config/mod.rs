//! `lodge config`: a host's configuration into a file, and from there to this or another host.

mod file;
mod sealed;
mod table;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use lodge_api::configuration::{ConfigurationRestored, RestoreOutcome};
use lodge_api::system::System;
use lodge_client::{Client, ClientError};
use serde_json::{Map, Value, json};

use self::file::Passphrase;
use crate::context::{Context, ask};
use crate::output::{self, Format};
use crate::target::RemoteName;

const URL: &str = "/v1/system/configuration";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write users, tokens, authorities, networks and VMs of a host to a file. Content of images and disks is not in it
    #[command(after_help = "Example: lodge config backup lab-2026-11-29.lodge lab:")]
    Backup(Backup),
    /// Bring the configuration in a file to a host. What is only on the host stays, and VMs are not started
    #[command(
        after_help = "Example: lodge config restore lab-2026-11-29.lodge spare: --mac 52:54:00:10:0d:00=52:54:00:20:0d:00"
    )]
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write
    file: PathBuf,
    /// REMOTE:
    remote: Option<RemoteName>,
    #[command(flatten)]
    passphrase: PassphraseFile,
    /// Write readable JSON, without a passphrase. It holds hashes of passwords
    #[arg(long, conflicts_with = "passphrase_file")]
    plain: bool,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The file that `lodge config backup` wrote
    file: PathBuf,
    /// REMOTE:
    remote: Option<RemoteName>,
    #[command(flatten)]
    passphrase: PassphraseFile,
    /// For uplinks of networks: a link of the old host, and the one of this host that takes its place; may be repeated
    #[arg(long = "mac", value_name = "OLD=NEW", value_parser = parse_mac)]
    macs: Vec<(String, String)>,
    /// Only show what would become different
    #[arg(long, conflicts_with = "yes")]
    preview: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct PassphraseFile {
    /// Read the passphrase from the first line of this file; without, it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl From<PassphraseFile> for Passphrase {
    fn from(given: PassphraseFile) -> Self {
        given.passphrase_file.map_or(Self::Asked, Self::File)
    }
}

fn parse_mac(text: &str) -> Result<(String, String), String> {
    let (old, new) = text
        .split_once('=')
        .ok_or("write two addresses, OLD=NEW, like 52:54:00:10:0d:00=52:54:00:20:0d:00")?;
    Ok((old.to_owned(), new.to_owned()))
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Backup(arguments) => backup(context, arguments).await,
        Verb::Restore(arguments) => restore(context, arguments).await,
    }
}

fn client(context: &Context, remote: Option<&RemoteName>) -> Result<Client, ClientError> {
    context.client(remote.map(|name| name.0.as_str()))
}

async fn backup(context: &Context, arguments: Backup) -> Result<(), ClientError> {
    let client = client(context, arguments.remote.as_ref())?;
    let (path, force) = (&arguments.file, arguments.force);
    // Before anybody has thought of a passphrase.
    file::require_free(path, force)?;
    let configuration: Value = client.get(URL).await?;
    let passphrase = match arguments.plain {
        true => None,
        false => Some(Passphrase::from(arguments.passphrase).choose()?),
    };
    file::write(path, &configuration, passphrase.as_deref(), force)?;
    let records = configuration["records"].as_array().map_or(0, Vec::len);
    let hostname = configuration["hostname"].as_str().unwrap_or_default();
    if context.format != Format::Table {
        let written = json!({"file": path, "hostname": hostname, "records": records});
        return output::structured(context.format, &written);
    }
    println!(
        "Configuration of {hostname} written to {}: {records} records",
        path.display()
    );
    Ok(())
}

async fn restore(context: &Context, arguments: Restore) -> Result<(), ClientError> {
    let passphrase = Passphrase::from(arguments.passphrase);
    let configuration = file::read(&arguments.file, &passphrase)?;
    let client = client(context, arguments.remote.as_ref())?;
    let macs: Map<String, Value> = arguments
        .macs
        .into_iter()
        .map(|(old, new)| (old, new.into()))
        .collect();
    let from = configuration["hostname"]
        .as_str()
        .unwrap_or("an unknown host")
        .to_owned();
    let mut body = json!({"configuration": configuration, "macs": macs, "preview": true});
    let preview = send(&client, &body).await?;
    if context.format == Format::Table {
        table::show(&preview)?;
    }
    if arguments.preview {
        return match context.format {
            Format::Table => Ok(()),
            format => output::structured(format, &preview),
        };
    }
    let changes = table::count(&preview, RestoreOutcome::Added)
        + table::count(&preview, RestoreOutcome::Replaced);
    if changes > 0 && !arguments.yes {
        confirm(&client, &from, &preview).await?;
    }
    // Also where nothing is different: by then, something may be.
    body["preview"] = false.into();
    let restored = send(&client, &body).await?;
    told(context, &from, &preview, &restored)
}

async fn send(client: &Client, body: &Value) -> Result<ConfigurationRestored, ClientError> {
    let url = format!("{URL}:restore");
    client.send(Method::POST, &url, body, None).await
}

/// Asks, with the name of the host that it is about.
async fn confirm(
    client: &Client,
    from: &str,
    preview: &ConfigurationRestored,
) -> Result<(), ClientError> {
    let system: System = client.get("/v1/system").await?;
    let question = format!(
        "restore the configuration of {} to {}, with {}? [y/N] ",
        table::plain(from),
        system.hostname,
        table::counts(preview)
    );
    if ask(&question)? != "y" {
        return Err(ClientError::Usage("nothing was done".to_owned()));
    }
    Ok(())
}

fn told(
    context: &Context,
    from: &str,
    preview: &ConfigurationRestored,
    restored: &ConfigurationRestored,
) -> Result<(), ClientError> {
    if context.format != Format::Table {
        return output::structured(context.format, restored);
    }
    // The others were shown before.
    for warning in &restored.warnings {
        if !preview.warnings.contains(warning) {
            println!("WARNING: {}", table::plain(warning));
        }
    }
    println!(
        "Configuration of {} restored: {}",
        table::plain(from),
        table::counts(restored)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_mapped_by_two_addresses() {
        let mapped = parse_mac("52:54:00:10:0d:00=52:54:00:20:0d:00").unwrap();
        assert_eq!(mapped.1, "52:54:00:20:0d:00");
        assert!(parse_mac("52:54:00:10:0d:00").is_err());
    }
}
