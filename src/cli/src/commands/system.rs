//! `lodge system`: the host itself.

use clap::Subcommand;
use http::Method;
use lodge_api::log::{LogEntry, LogLevel};
use lodge_api::page::Page;
use lodge_api::system::{Controls, StorageKind, System, SystemPatch};
use lodge_client::{Client, ClientError};
use std::time::Duration;

use super::{system_authority, system_install, system_update};
use crate::content::Content;
use crate::context::{Context, ask};
use crate::output::{self, Format};
use crate::target::{RemoteName, Target};

/// How often a followed log is asked for news.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show hardware, KVM state, versions, usage and warnings
    Show {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Show the log
    Log {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Go on showing new lines
        #[arg(short, long)]
        follow: bool,
        /// The least important level shown
        #[arg(long, value_parser = ["error", "warning", "info", "debug"], default_value = "info")]
        level: String,
        /// Most lines
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: u32,
    },
    /// Give the host another name
    Rename {
        /// [REMOTE:]NAME
        target: Target,
    },
    /// List the disks of the host, with what is on them
    Disks {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Install Lodge on a disk of the host, and move the host's data there if they are in memory
    Install {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Serial number of the disk, as `lodge system disks` shows it; the name of a disk without one
        #[arg(long)]
        disk: String,
        /// Erase what is on the disk without asking
        #[arg(long)]
        erase: bool,
        /// Print the operation and return at once
        #[arg(long)]
        background: bool,
    },
    /// List the two versions of Lodge on the host's disk, and which of them starts
    Images {
        /// REMOTE:
        remote: Option<RemoteName>,
    },
    /// Update Lodge, and go back by itself if the host does not come up with it
    Update {
        /// The signed file, or the https:// or http:// address of one that the host is to fetch by itself
        #[arg(value_name = "FILE|URL", value_parser = Content::parser())]
        content: Content,
        /// REMOTE:
        remote: Option<RemoteName>,
        #[command(flatten)]
        how: system_update::How,
    },
    /// Go back to the other version, or forget an update that was not tried yet
    Rollback {
        /// REMOTE:
        remote: Option<RemoteName>,
        #[command(flatten)]
        how: system_update::How,
    },
    /// Who may sign updates
    #[command(subcommand)]
    UpdateKey(system_update::KeyVerb),
    /// Whom the host trusts beside the public certificate authorities, for content at https URLs
    #[command(subcommand)]
    Authority(system_authority::AuthorityVerb),
    /// Power guests off, then the host
    Shutdown {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Power guests off, then restart the host
    Reboot {
        /// REMOTE:
        remote: Option<RemoteName>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::Show { remote } => {
            let client = client(context, remote.as_ref())?;
            let system: System = client.get("/v1/system").await?;
            output::object(context.format, &system, rows)
        }
        Verb::Log {
            remote,
            follow,
            level,
            lines,
        } => {
            log(
                context,
                &client(context, remote.as_ref())?,
                &level,
                lines,
                follow,
            )
            .await
        }
        Verb::Rename { target } => rename(context, target).await,
        Verb::Disks { remote } => {
            system_install::disks(context, &client(context, remote.as_ref())?).await
        }
        Verb::Install {
            remote,
            disk,
            erase,
            background,
        } => {
            let client = client(context, remote.as_ref())?;
            system_install::install(context, &client, &disk, erase, background).await
        }
        Verb::Images { remote } => {
            system_update::images(context, &client(context, remote.as_ref())?).await
        }
        Verb::Update {
            content,
            remote,
            how,
        } => system_update::update(context, remote.as_ref(), &content, how).await,
        Verb::Rollback { remote, how } => {
            system_update::rollback(context, &client(context, remote.as_ref())?, how).await
        }
        Verb::UpdateKey(verb) => system_update::keys(context, verb).await,
        Verb::Authority(verb) => system_authority::run(context, verb).await,
        Verb::Shutdown { remote, yes } => power(context, remote.as_ref(), "shutdown", yes).await,
        Verb::Reboot { remote, yes } => power(context, remote.as_ref(), "reboot", yes).await,
    }
}

fn client(context: &Context, remote: Option<&RemoteName>) -> Result<Client, ClientError> {
    context.client(remote.map(|name| name.0.as_str()))
}

async fn rename(context: &Context, target: Target) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let patch = SystemPatch {
        hostname: Some(target.name),
        update_keys: None,
    };
    let system: System = client
        .send(Method::PATCH, "/v1/system", &patch, None)
        .await?;
    output::done(
        context.format,
        &format!("{} is the host's name now", system.hostname),
    );
    Ok(())
}

async fn power(
    context: &Context,
    remote: Option<&RemoteName>,
    verb: &str,
    yes: bool,
) -> Result<(), ClientError> {
    let client = client(context, remote)?;
    let system: System = client.get("/v1/system").await?;
    let question = format!(
        "{verb} {} with {} running guests? [y/N] ",
        system.hostname, system.usage.vms_running
    );
    if !yes && ask(&question)? != "y" {
        return Err(ClientError::Usage("nothing was done".to_owned()));
    }
    client
        .raw(Method::POST, &format!("/v1/system:{verb}"), None, None)
        .await?;
    output::done(
        context.format,
        &format!("{}: {verb} begins", system.hostname),
    );
    Ok(())
}

async fn log(
    context: &Context,
    client: &Client,
    level: &str,
    lines: u32,
    follow: bool,
) -> Result<(), ClientError> {
    let mut url = format!("/v1/system/log?level={level}&limit={lines}");
    loop {
        let page: Page<LogEntry> = client.get(&url).await?;
        for entry in &page.items {
            print(context.format, entry)?;
        }
        if !follow {
            return Ok(());
        }
        if let Some(last) = page.items.last() {
            url = format!(
                "/v1/system/log?level={level}&limit=1000&since={}",
                last.sequence
            );
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

fn print(format: Format, entry: &LogEntry) -> Result<(), ClientError> {
    if format != Format::Table {
        return output::structured(format, entry);
    }
    let level = match entry.level {
        LogLevel::Error => "ERROR",
        LogLevel::Warning => "WARN",
        LogLevel::Info => "INFO",
        LogLevel::Debug => "DEBUG",
    };
    println!(
        "{:.3} {level:<5} {}: {}",
        entry.time, entry.source, entry.message
    );
    Ok(())
}

/// What guests can be held to, in one line.
fn controls(controls: &Controls) -> String {
    let affinity = controls.processors.as_ref();
    let parts = [
        controls.cpu.then(|| "CPU shares and limit".to_owned()),
        affinity.map(|processors| format!("CPU affinity to {processors}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => {
            "no shares, limit or affinity of CPUs: Lodge has no cgroup controllers here".to_owned()
        }
        false => parts.join(", "),
    }
}

fn rows(system: &System) -> Vec<(&'static str, String)> {
    let hardware = &system.hardware;
    let usage = &system.usage;
    let storage = &system.storage;
    let place = match storage.kind {
        StorageKind::Disk => storage.device.clone().unwrap_or_default(),
        StorageKind::Ram => "RAM, lost at restart".to_owned(),
    };
    let kvm = match (&system.kvm.reason, system.kvm.usable) {
        (_, true) => "guests can run".to_owned(),
        (reason, false) => format!(
            "guests cannot run: {}",
            reason.as_deref().unwrap_or("unknown")
        ),
    };
    let mut rows = vec![
        ("Host", system.hostname.clone()),
        (
            "Machine",
            format!(
                "{} {}, {}",
                hardware.vendor, hardware.product, hardware.firmware
            ),
        ),
        (
            "Processor",
            format!(
                "{}, {} sockets, {} cores, {} threads",
                hardware.cpu_model, hardware.sockets, hardware.cores, hardware.threads
            ),
        ),
        ("KVM", kvm),
        ("Guests' limits", controls(&system.controls)),
        (
            "CPU",
            format!(
                "{:.0} %, load {:.2} {:.2} {:.2}",
                usage.cpu_percent, usage.load[0], usage.load[1], usage.load[2]
            ),
        ),
        (
            "Memory",
            format!("{} of {} used", usage.memory_used, hardware.memory),
        ),
        (
            "Guests",
            format!("{} running of {}", usage.vms_running, usage.vms_total),
        ),
        (
            "Storage",
            format!(
                "{} of {} free, {} on {place}",
                storage.free, storage.size, storage.filesystem
            ),
        ),
        (
            "Versions",
            format!(
                "lodge {}, API {}, Linux {}",
                system.versions.lodge, system.versions.api, system.versions.kernel
            ),
        ),
        ("URL", system.urls.join(" ")),
        ("Certificate", system.certificate_fingerprint.clone()),
        ("NVMe name", system.nvme_nqn.clone()),
        ("Started", system.started_at.to_string()),
    ];
    rows.extend(system.links.iter().map(|link| {
        let carrier = if link.carrier { "up" } else { "no carrier" };
        (
            "Link",
            format!(
                "{} {} ({}), {carrier} {}",
                link.mac,
                link.name,
                link.driver,
                link.addresses.join(" ")
            ),
        )
    }));
    rows.extend(hardware.block_devices.iter().map(|device| {
        (
            "Disk",
            format!("{} {} {}", device.name, device.size, device.model),
        )
    }));
    rows.extend(
        system
            .warnings
            .iter()
            .map(|warning| ("WARNING", warning.clone())),
    );
    rows
}
