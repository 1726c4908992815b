//! `lodge vm import`: machines of other hypervisors.

use std::path::{Path, PathBuf};

use clap::Args;
use lodge_api::vm::VmImported;
use lodge_client::{ClientError, encode_segment};

use super::image_upload::{Sent, send};
use super::path;
use crate::context::Context;
use crate::output;
use crate::target::Target;

/// An OVA, and what becomes of it.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The archive, FILE.ova
    file: PathBuf,
    /// [REMOTE:]NAME of the VM; the file's name if not given
    name: Option<Target>,
    /// Network for all its interfaces
    #[arg(long, default_value = "default")]
    network: String,
}

pub(super) async fn import(context: &Context, arguments: Import) -> Result<(), ClientError> {
    let Import {
        file,
        name,
        network,
    } = arguments;
    let name = match name {
        Some(name) => name,
        None => Target {
            remote: None,
            name: name_of(&file)?,
        },
    };
    let url = format!(
        "/v1/vms:import?name={}&network={}",
        encode_segment(&name.name),
        encode_segment(&network)
    );
    let object = path("vms", &name.name);
    // Its own manifest is what its parts are checked by.
    let sent: Sent<VmImported> = send(context, &file, &name, &url, &object).await?;
    let imported = sent.answer;
    if context.format != output::Format::Table {
        return output::structured(context.format, &imported);
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
