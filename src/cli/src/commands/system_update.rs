//! `lodge system images`, `update`, `rollback` and `update-key`: other versions of Lodge on the host's disk.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use lodge_api::operation::Operation;
use lodge_api::page::Page;
use lodge_api::system::{System, SystemPatch};
use lodge_api::update::{GuestsMeanwhile, HostImage, UpdateFetch, Updated};
use lodge_client::{Client, ClientError};

use super::image_upload;
use crate::content::Content;
use crate::context::{Context, ask};
use crate::output::{self, Format};
use crate::target::{RemoteName, Target};

const UPDATE: &str = "/v1/system:update";
const ROLLBACK: &str = "/v1/system:rollback";

const RESTARTS: &str = "The host restarts with it. If it does not come up, it goes back to the version before by itself; \
    `lodge system images` says which one runs";

/// What happens around the restart.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct How {
    /// Leave the restart to you
    #[arg(long)]
    no_restart: bool,
    /// Power guests off instead of saving them
    #[arg(long)]
    power_off: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// List who may sign updates
    #[command(visible_alias = "ls")]
    List {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Trust a key
    Add {
        /// The key, 56 characters that begin with RW, or a .pub file of minisign
        key: String,
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Trust a key no longer
    #[command(visible_alias = "rm")]
    Remove {
        /// The key, or a .pub file of minisign
        key: String,
        /// REMOTE:
        remote: Option<RemoteName>,
    },
}

pub(crate) async fn images(context: &Context, client: &Client) -> Result<(), ClientError> {
    let page: Page<HostImage> = client.get("/v1/system/images").await?;
    output::list(
        context.format,
        &page.items,
        &["IMAGE", "VERSION", "RUNS", "STARTS"],
        |image| {
            vec![
                image.slot.as_str().to_owned(),
                image.version.clone().unwrap_or_else(|| "-".to_owned()),
                if image.running { "yes" } else { "-" }.to_owned(),
                image.state.as_str().to_owned(),
            ]
        },
    )
}

pub(crate) async fn update(
    context: &Context,
    remote: Option<&RemoteName>,
    content: &Content,
    how: How,
) -> Result<(), ClientError> {
    let target = Target {
        remote: remote.map(|name| name.0.clone()),
        name: String::new(),
    };
    let client = context.client(target.remote.as_deref())?;
    how.ask(&client).await?;
    let file = match content {
        Content::File(file) => file,
        Content::Url(url) => return fetch(context, &client, url, how).await,
    };
    let url = how.url(UPDATE);
    let sent = image_upload::send(context, file, &target, &url, "/v1/system").await?;
    told(context, &sent.answer)
}

/// Has the host fetch it.
async fn fetch(context: &Context, client: &Client, url: &str, how: How) -> Result<(), ClientError> {
    let body = UpdateFetch {
        url: url.to_owned(),
        restart: !how.no_restart,
        guests: how.guests(),
    };
    let path = "/v1/system:fetch_update";
    let operation: Operation = client.send(Method::POST, path, &body, None).await?;
    let text = match how.no_restart {
        true => "The update starts the next time; `lodge system images` says which version it is",
        false => RESTARTS,
    };
    context.finish(client, operation, false, text).await
}

pub(crate) async fn rollback(
    context: &Context,
    client: &Client,
    how: How,
) -> Result<(), ClientError> {
    how.ask(client).await?;
    let url = how.url(ROLLBACK);
    let updated = client.post(&url).await?;
    told(context, &updated)
}

impl How {
    fn guests(self) -> GuestsMeanwhile {
        match self.power_off {
            true => GuestsMeanwhile::PowerOff,
            false => GuestsMeanwhile::Suspend,
        }
    }

    fn url(self, path: &str) -> String {
        let (restart, guests) = (!self.no_restart, self.guests().as_str());
        format!("{path}?restart={restart}&guests={guests}")
    }

    async fn ask(self, client: &Client) -> Result<(), ClientError> {
        if self.yes || self.no_restart {
            return Ok(());
        }
        let system: System = client.get("/v1/system").await?;
        let guests = match self.guests() {
            GuestsMeanwhile::Suspend => "saved and go on afterwards",
            GuestsMeanwhile::PowerOff => "powered off",
        };
        let question = format!(
            "{} restarts at the end, with {} running guests, which are {guests}. Go on? [y/N] ",
            system.hostname, system.usage.vms_running
        );
        if ask(&question)? == "y" {
            Ok(())
        } else {
            Err(ClientError::Usage(
                "nothing was done; --no-restart leaves the restart to you".to_owned(),
            ))
        }
    }
}

fn told(context: &Context, updated: &Updated) -> Result<(), ClientError> {
    if context.format != Format::Table {
        return output::structured(context.format, updated);
    }
    let (slot, version) = (updated.slot.as_str(), &updated.version);
    if updated.restarts {
        println!("Lodge {version} is image {slot}. {RESTARTS}");
    } else {
        println!("Lodge {version}, image {slot}, starts the next time");
    }
    Ok(())
}

pub(crate) async fn keys(context: &Context, verb: KeyVerb) -> Result<(), ClientError> {
    match verb {
        KeyVerb::List { remote } => {
            let client = client(context, remote.as_ref())?;
            let system: System = client.get("/v1/system").await?;
            output::list(context.format, &system.update_keys, &["KEY"], |key| {
                vec![key.clone()]
            })
        }
        KeyVerb::Add { remote, key } => {
            let key = read_key(&key)?;
            change_keys(context, remote.as_ref(), |keys| {
                if !keys.contains(&key) {
                    keys.push(key.clone());
                }
                Ok(format!("updates signed with {key} are taken now"))
            })
            .await
        }
        KeyVerb::Remove { remote, key } => {
            let key = read_key(&key)?;
            change_keys(context, remote.as_ref(), |keys| {
                let before = keys.len();
                keys.retain(|other| *other != key);
                if keys.len() == before {
                    return Err(ClientError::Usage(format!("{key} is not trusted anyway")));
                }
                Ok(format!("updates signed with {key} are refused now"))
            })
            .await
        }
    }
}

async fn change_keys(
    context: &Context,
    remote: Option<&RemoteName>,
    change: impl FnOnce(&mut Vec<String>) -> Result<String, ClientError>,
) -> Result<(), ClientError> {
    let client = client(context, remote)?;
    let system: System = client.get("/v1/system").await?;
    let mut keys = system.update_keys;
    let done = change(&mut keys)?;
    let patch = SystemPatch {
        hostname: None,
        update_keys: Some(keys),
    };
    let _: System = client
        .send(Method::PATCH, "/v1/system", &patch, None)
        .await?;
    output::done(context.format, &done);
    Ok(())
}

fn client(context: &Context, remote: Option<&RemoteName>) -> Result<Client, ClientError> {
    context.client(remote.map(|name| name.0.as_str()))
}

/// A key, as it is or out of the file that minisign keeps it in, whose first line is a comment.
fn read_key(text: &str) -> Result<String, ClientError> {
    let path = PathBuf::from(text);
    if !path.exists() {
        return Ok(text.to_owned());
    }
    let content = std::fs::read_to_string(&path).map_err(|source| ClientError::File {
        path: text.to_owned(),
        source,
    })?;
    let mut lines = content.lines().map(str::trim);
    lines
        .rfind(|line| !line.is_empty() && !line.contains(' '))
        .map(str::to_owned)
        .ok_or_else(|| ClientError::Usage(format!("{text} holds no public key of minisign")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_as_text_or_from_a_file() {
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        assert_eq!(read_key(key).unwrap(), key);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_string_lossy();
        assert!(read_key(&path).is_err());
        let text = format!("untrusted comment: minisign public key 1\n{key}\n");
        std::fs::write(file.path(), text).unwrap();
        assert_eq!(read_key(&path).unwrap(), key);
    }
}
