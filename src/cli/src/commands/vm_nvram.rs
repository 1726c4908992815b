//! `lodge vm nvram`: UEFI variables of VMs that do not run.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use lodge_api::nvram::{VmVariable, VmVariableInfo, VmVariableSet};
use lodge_api::page::Page;
use lodge_client::{ClientError, encode_segment};

use super::path;
use crate::context::{Context, ask};
use crate::output;
use crate::target::Target;

/// Whose the variables of the UEFI specification are (`EFI_GLOBAL_VARIABLE`).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Characters of a GUID.
const GUID: usize = 36;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List them
    #[command(visible_alias = "ls")]
    List {
        /// [REMOTE:]NAME
        name: Target,
    },
    /// Show one
    Get {
        /// [REMOTE:]NAME
        name: Target,
        /// NAME-GUID; without the GUID, one of the UEFI specification's own
        variable: String,
        /// Write its data to standard output as it is
        #[arg(long)]
        raw: bool,
    },
    /// Make or change one
    Set {
        /// [REMOTE:]NAME
        name: Target,
        /// NAME-GUID; without the GUID, one of the UEFI specification's own
        variable: String,
        /// Its data, two hexadecimal digits for each byte
        #[arg(required_unless_present = "file")]
        data: Option<String>,
        /// Take the data from a file
        #[arg(long, conflicts_with = "data")]
        file: Option<PathBuf>,
        /// Attributes as a number [those it has, or 7]
        #[arg(long)]
        attributes: Option<u32>,
    },
    /// Delete one
    #[command(visible_alias = "rm")]
    Delete {
        /// [REMOTE:]NAME
        name: Target,
        /// NAME-GUID; without the GUID, one of the UEFI specification's own
        variable: String,
    },
    /// Forget all: the VM begins with fresh ones
    Reset {
        /// [REMOTE:]NAME
        name: Target,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub(super) async fn run(context: &Context, verb: Verb) -> Result<(), ClientError> {
    match verb {
        Verb::List { name } => list(context, &name).await,
        Verb::Get {
            name,
            variable,
            raw,
        } => get(context, &name, &variable, raw).await,
        Verb::Set {
            name,
            variable,
            data,
            file,
            attributes,
        } => {
            let data = match file {
                Some(file) => read(&file)?,
                None => data.unwrap_or_default(),
            };
            let body = VmVariableSet { data, attributes };
            set(context, &name, &variable, &body).await
        }
        Verb::Delete { name, variable } => {
            let client = context.client(name.remote.as_deref())?;
            client.delete(&url(&name, &variable)).await?;
            let text = format!("VM {}: {variable} deleted", name.name);
            output::done(context.format, &text);
            Ok(())
        }
        Verb::Reset { name, yes } => reset(context, &name, yes).await,
    }
}

async fn list(context: &Context, target: &Target) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let page: Page<VmVariableInfo> = client.get(&collection(target)).await?;
    let head = ["NAME", "GUID", "ATTRIBUTES", "BYTES"];
    output::list(context.format, &page.items, &head, |variable| {
        vec![
            variable.name.escape_debug().to_string(),
            variable.guid.to_string(),
            variable.attributes.to_string(),
            variable.size.to_string(),
        ]
    })
}

async fn get(
    context: &Context,
    target: &Target,
    variable: &str,
    raw: bool,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let found: VmVariable = client.get(&url(target, variable)).await?;
    if raw {
        let bytes = bytes(&found.data)
            .ok_or_else(|| ClientError::Usage("the host's answer is not hexadecimal".to_owned()))?;
        return std::io::stdout().write_all(&bytes).map_err(|source| {
            let path = "standard output".to_owned();
            ClientError::File { path, source }
        });
    }
    output::object(context.format, &found, |variable| {
        vec![
            ("Name", variable.info.name.escape_debug().to_string()),
            ("GUID", variable.info.guid.to_string()),
            ("Attributes", variable.info.attributes.to_string()),
            ("Bytes", variable.info.size.to_string()),
            ("Data", variable.data.clone()),
        ]
    })
}

async fn set(
    context: &Context,
    target: &Target,
    variable: &str,
    body: &VmVariableSet,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let url = url(target, variable);
    let now: VmVariable = client.send(Method::PUT, &url, body, None).await?;
    let text = format!(
        "VM {}: {variable} has {} bytes now",
        target.name, now.info.size
    );
    output::done(context.format, &text);
    Ok(())
}

async fn reset(context: &Context, target: &Target, yes: bool) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let name = &target.name;
    if !yes && ask(&format!("Forget all UEFI variables of VM {name}? [y/N] "))? != "y" {
        return Err(ClientError::Usage("nothing was changed".to_owned()));
    }
    client.delete(&collection(target)).await?;
    let text = format!("VM {name} begins with fresh UEFI variables");
    output::done(context.format, &text);
    Ok(())
}

fn collection(target: &Target) -> String {
    format!("{}/nvram", path("vms", &target.name))
}

fn url(target: &Target, variable: &str) -> String {
    format!("{}/{}", collection(target), encode_segment(&full(variable)))
}

/// With a GUID: one of the UEFI specification's own has none.
fn full(variable: &str) -> String {
    let end = variable.len().checked_sub(GUID + 1);
    let guid = end.and_then(|end| variable.get(end..)?.strip_prefix('-'));
    let parts = guid.map(|guid| guid.split('-').map(str::len).collect::<Vec<_>>());
    if parts.is_some_and(|parts| parts == [8, 4, 4, 4, 12]) {
        variable.to_owned()
    } else {
        format!("{variable}-{GLOBAL}")
    }
}

fn read(file: &PathBuf) -> Result<String, ClientError> {
    let bytes = fs::read(file).map_err(|source| ClientError::File {
        path: file.display().to_string(),
        source,
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_specification_need_no_guid() {
        assert_eq!(full("BootOrder"), format!("BootOrder-{GLOBAL}"));
        let own = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f";
        assert_eq!(full(own), own);
        let long = "a-name-that-has-hyphens-and-is-longer-than-a-guid";
        assert_eq!(full(long), format!("{long}-{GLOBAL}"));
        assert_eq!(bytes("00ff7f"), Some(vec![0, 255, 127]));
        assert_eq!(bytes("0g"), None);
    }
}
