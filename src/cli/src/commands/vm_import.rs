//! `lodge vm import`: machines of other hypervisors.

use std::path::Path;

use clap::Args;
use http::Method;
use lodge_api::operation::Operation;
use lodge_api::vm::VmImported;
use lodge_client::{ClientError, encode_segment};
use serde_json::{Value, json};

use super::image_upload::{Sent, send};
use super::path;
use crate::content::Content;
use crate::context::Context;
use crate::target::Target;
use crate::{output, progress};

/// An OVA, and what becomes of it.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The archive, FILE.ova, or the https:// or http:// address of one that the host is to fetch by itself
    #[arg(value_name = "FILE|URL", value_parser = Content::parser())]
    content: Content,
    /// [REMOTE:]NAME of the VM; the file's name if not given
    name: Option<Target>,
    /// Network for all its interfaces
    #[arg(long, default_value = "default")]
    network: String,
    /// Datastore for its disks
    #[arg(long, default_value = "default")]
    datastore: String,
}

pub(super) async fn import(context: &Context, arguments: Import) -> Result<(), ClientError> {
    let Import {
        content,
        name,
        network,
        datastore,
    } = arguments;
    let name = match name {
        Some(name) => name,
        None => Target {
            remote: None,
            name: name_of(content.path())?,
        },
    };
    let file = match content {
        Content::File(file) => file,
        Content::Url(url) => {
            let body = json!({
                "url": url,
                "name": name.name,
                "network": network,
                "datastore": datastore,
            });
            return fetch(context, &name, body).await;
        }
    };
    let url = format!(
        "/v1/vms:import?name={}&network={}&datastore={}",
        encode_segment(&name.name),
        encode_segment(&network),
        encode_segment(&datastore)
    );
    let object = path("vms", &name.name);
    // Its own manifest is what its parts are checked by.
    let sent: Sent<VmImported> = send(context, &file, &name, &url, &object).await?;
    show(context, &sent.answer)
}

/// Has the host fetch it.
async fn fetch(context: &Context, name: &Target, body: Value) -> Result<(), ClientError> {
    let client = context.client(name.remote.as_deref())?;
    let operation: Operation = client
        .send(Method::POST, "/v1/vms:fetch", &body, None)
        .await?;
    let operation = progress::follow(&client, operation).await?;
    let imported = VmImported {
        vm: client.get(&path("vms", &name.name)).await?,
        warnings: operation.log,
    };
    show(context, &imported)
}

fn show(context: &Context, imported: &VmImported) -> Result<(), ClientError> {
    if context.format != output::Format::Table {
        return output::structured(context.format, imported);
    }
    for warning in &imported.warnings {
        eprintln!("warning: {warning}");
    }
    let spec = &imported.vm.spec;
    println!(
        "VM {} imported: {} CPUs, {}, {} disks, {} network interfaces",
        spec.name,
        spec.vcpus,
        spec.memory,
        spec.disks.len(),
        spec.nics.len()
    );
    Ok(())
}

/// A name that a VM may have, out of the file's.
fn name_of(file: &Path) -> Result<String, ClientError> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let plain = stem.to_ascii_lowercase();
    let plain: String = plain
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(48)
        .collect();
    let name = plain.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let name = name.trim_end_matches('-');
    if name.is_empty() {
        let text = "the file's name is no name for a VM; give one: lodge vm import FILE NAME";
        return Err(ClientError::Usage(text.to_owned()));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_files() {
        let name = |file: &str| name_of(Path::new(file)).ok();
        assert_eq!(name("/x/Web Server_2.ova").as_deref(), Some("web-server-2"));
        assert_eq!(name("2024-db.ova").as_deref(), Some("db"));
        assert_eq!(name("1.ova"), None);
    }
}
