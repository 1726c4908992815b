//! `lodge system disks` and `lodge system install`: Lodge on a disk of the host.

use http::Method;
use lodge_api::install::{HostDisk, Install};
use lodge_api::operation::Operation;
use lodge_api::page::Page;
use lodge_client::{Client, ClientError};

use crate::context::{Context, ask};
use crate::output;

pub(crate) async fn disks(context: &Context, client: &Client) -> Result<(), ClientError> {
    let disks = list(client).await?;
    output::list(
        context.format,
        &disks,
        &[
            "NAME", "SERIAL", "MODEL", "SIZE", "BUS", "HEALTH", "CONTENTS",
        ],
        |disk| {
            vec![
                disk.name.clone(),
                disk.serial.clone().unwrap_or_else(|| "-".to_owned()),
                disk.model.clone(),
                disk.size.to_string(),
                disk.transport.clone().unwrap_or_default(),
                health(disk),
                summary(disk),
            ]
        },
    )
}

pub(crate) async fn install(
    context: &Context,
    client: &Client,
    disk: &str,
    erase: bool,
    background: bool,
) -> Result<(), ClientError> {
    let erase = erase || erase_allowed(client, disk).await?;
    let body = Install {
        disk: disk.to_owned(),
        erase,
    };
    let operation: Operation = client
        .send(Method::POST, "/v1/system:install", &body, None)
        .await?;
    let text = format!(
        "Lodge is installed on {disk}. Remove the stick or the CD before the host starts the next time"
    );
    context.finish(client, operation, background, &text).await
}

/// Whether a disk of the host may be erased, which a person is asked where something is on it.
pub(super) async fn erase_allowed(client: &Client, disk: &str) -> Result<bool, ClientError> {
    let disks = list(client).await?;
    match disks.iter().find(|found| found.identity() == disk) {
        // The host says what is wrong.
        None => Ok(false),
        Some(found) => confirm(found),
    }
}

/// Shows what will be lost and has the disk named once more; a blank one needs no word.
fn confirm(disk: &HostDisk) -> Result<bool, ClientError> {
    if disk.contents.is_empty() || disk.in_use.is_some() {
        return Ok(false);
    }
    let identity = disk.identity();
    eprintln!("{} {} ({}) is not blank:", disk.name, disk.model, disk.size);
    for line in &disk.contents {
        eprintln!("  {line}");
    }
    let answer = ask(&format!(
        "All of it will be lost. Type {identity} to go on: "
    ))?;
    if answer == identity {
        Ok(true)
    } else {
        Err(ClientError::Usage("nothing was done".to_owned()))
    }
}

/// `sound, 37 °C, 4 % used`
fn health(disk: &HostDisk) -> String {
    let Some(health) = &disk.health else {
        return "-".to_owned();
    };
    let mut said = vec![match health.problems.as_slice() {
        [] => "sound".to_owned(),
        problems => problems.join("; "),
    }];
    let temperature = health.temperature_c;
    said.extend(temperature.map(|degrees| format!("{degrees} °C")));
    said.extend(health.used_percent.map(|used| format!("{used} % used")));
    let errors = health.errors.filter(|errors| *errors > 0);
    said.extend(errors.map(|errors| format!("{errors} errors")));
    said.join(", ")
}

fn summary(disk: &HostDisk) -> String {
    if let Some(reason) = &disk.in_use {
        return format!("in use: {reason}");
    }
    match disk.contents.as_slice() {
        [] => "blank".to_owned(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
    }
}

pub(super) async fn list(client: &Client) -> Result<Vec<HostDisk>, ClientError> {
    let page: Page<HostDisk> = client.get("/v1/system/disks").await?;
    Ok(page.items)
}
