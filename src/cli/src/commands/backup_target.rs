//! `lodge backup target`: where hosts write backups to.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use http::Method;
use lodge_api::Name;
use lodge_api::backup::{BackupTarget, BackupTargetCreate, BackupTargetKind, BackupTargetPatch};
use lodge_api::operation::Operation;
use lodge_client::ClientError;

use super::disk::parse_name;
use super::export::failed;
use super::{all, path};
use crate::context::{Context, ask_password};
use crate::output;
use crate::target::{RemoteName, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add one: a folder on a datastore or, with --endpoint, an S3 bucket
    Add {
        /// [REMOTE:]NAME
        name: Target,
        /// Datastore of the host, in whose folder `backups` they will be
        #[arg(long, conflicts_with_all = ["directory", "endpoint"], required_unless_present_any = ["directory", "endpoint"])]
        datastore: Option<Name>,
        /// Directory on an ordinary Linux host instead
        #[arg(long, conflicts_with = "endpoint")]
        directory: Option<String>,
        /// URL of an S3 service, like https://s3.example.com
        #[arg(long, requires_all = ["bucket", "access_key"])]
        endpoint: Option<String>,
        /// Region that the bucket is in [us-east-1]
        #[arg(long, requires = "endpoint")]
        region: Option<String>,
        /// Bucket, which is there
        #[arg(long, requires = "endpoint")]
        bucket: Option<String>,
        /// What the names of all objects begin with
        #[arg(long, requires = "endpoint")]
        prefix: Option<String>,
        /// Id of the key for it
        #[arg(long, requires = "endpoint")]
        access_key: Option<String>,
        /// File with the secret key; without, it is asked for
        #[arg(long, requires = "endpoint", value_name = "FILE")]
        secret_key_file: Option<PathBuf>,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List backup targets
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
    /// Rename one, or change how it is reached
    Set {
        /// [REMOTE:]NAME
        name: Target,
        /// The new name
        #[arg(long)]
        rename: Option<String>,
        /// Another URL of the same S3 service
        #[arg(long)]
        endpoint: Option<String>,
        /// Another region
        #[arg(long)]
        region: Option<String>,
        /// Id of another key
        #[arg(long)]
        access_key: Option<String>,
        /// Ask for another secret key
        #[arg(long, conflicts_with = "secret_key_file")]
        secret_key: bool,
        /// File with another secret key
        #[arg(long, value_name = "FILE")]
        secret_key_file: Option<PathBuf>,
    },
    /// Forget one; what is there stays, and is known again when it is added again
    #[command(visible_alias = "rm")]
    Remove {
        /// [REMOTE:]NAME, one or several
        #[arg(required = true)]
        names: Vec<Target>,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Add {
            name,
            datastore,
            directory,
            endpoint,
            region,
            bucket,
            prefix,
            access_key,
            secret_key_file,
            background,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let (kind, secret_key) = match endpoint {
                Some(_) => (
                    BackupTargetKind::S3,
                    Some(secret(secret_key_file.as_deref())?),
                ),
                None => (BackupTargetKind::Directory, None),
            };
            let body = BackupTargetCreate {
                name: parse_name(&name.name)?,
                kind,
                datastore,
                directory,
                endpoint,
                region,
                bucket,
                prefix,
                access_key,
                secret_key,
            };
            let url = "/v1/backup-targets";
            let operation: Operation = client.send(Method::POST, url, &body, None).await?;
            let text = format!("Backup target {} added", body.name);
            context.finish(&client, operation, background, &text).await
        }
        Verb::List { remote } => {
            let client = context.client(remote.as_ref().map(|name| name.0.as_str()))?;
            let targets: Vec<BackupTarget> = all(&client, "backup-targets", None).await?;
            let head = ["NAME", "KIND", "AT", "BACKUPS", "SIZE"];
            output::list(context.format, &targets, &head, |target| {
                vec![
                    target.name.to_string(),
                    target.kind.as_str().to_owned(),
                    at(target),
                    target.backups.to_string(),
                    target.size.to_string(),
                ]
            })
        }
        Verb::Show { name } => {
            let client = context.client(name.remote.as_deref())?;
            let target: BackupTarget = client.get(&path("backup-targets", &name.name)).await?;
            output::object(context.format, &target, rows)
        }
        Verb::Set {
            name,
            rename,
            endpoint,
            region,
            access_key,
            secret_key,
            secret_key_file,
        } => {
            let client = context.client(name.remote.as_deref())?;
            let other = secret_key || secret_key_file.is_some();
            let other = other.then(|| secret(secret_key_file.as_deref()));
            let patch = BackupTargetPatch {
                name: rename.as_deref().map(parse_name).transpose()?,
                endpoint,
                region,
                access_key,
                secret_key: other.transpose()?,
            };
            let url = path("backup-targets", &name.name);
            let operation: Operation = client.send(Method::PATCH, &url, &patch, None).await?;
            let text = format!("Backup target {} changed", name.name);
            context.finish(&client, operation, false, &text).await
        }
        Verb::Remove { names } => {
            for name in &names {
                let client = context.client(name.remote.as_deref())?;
                client.delete(&path("backup-targets", &name.name)).await?;
                let text = format!("Backup target {} removed; what is there stays", name.name);
                output::done(context.format, &text);
            }
            Ok(())
        }
    }
}

/// The secret key, which does not belong on a command line that others see.
fn secret(file: Option<&Path>) -> Result<String, ClientError> {
    let text = match file {
        Some(file) => std::fs::read_to_string(file).map_err(|source| failed(file, source))?,
        None => ask_password("Secret key: ")?,
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn at(target: &BackupTarget) -> String {
    if let Some(datastore) = &target.datastore {
        return format!("datastore {datastore}");
    }
    if let Some(directory) = &target.directory {
        return directory.clone();
    }
    let parts = [&target.endpoint, &target.bucket, &target.prefix];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    parts.join("/")
}

fn rows(target: &BackupTarget) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("Name", target.name.to_string()),
        ("Id", target.id.to_string()),
        ("Kind", target.kind.as_str().to_owned()),
        ("At", at(target)),
    ];
    let more = [
        ("Region", &target.region),
        ("Access key", &target.access_key),
    ];
    rows.extend(
        more.into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?))),
    );
    rows.extend([
        ("Backups", target.backups.to_string()),
        ("Size", target.size.to_string()),
        ("Added", target.created_at.to_string()),
    ]);
    rows
}
