//! What a VM's cloud-init is given: options of `lodge vm create` and `set`, and `lodge vm cloud-init`.

use std::fs;
use std::io::Read;

use clap::Args;
use lodge_api::vm::{CloudInitFiles, Vm, VmCloudInit};
use lodge_client::ClientError;
use serde_json::{Map, Value, json};

use super::path;
use crate::context::Context;
use crate::output::{self, Format};
use crate::target::Target;

/// What its cloud-init is given; a VM without any of it has no such disc.
#[derive(Debug, Args)]
#[command(next_help_heading = "What its cloud-init is given, at the first start or after a change")]
pub(crate) struct CloudInit {
    /// File with user data: #cloud-config, a script, #include or MIME parts; - for standard input
    #[arg(long, value_name = "FILE")]
    user_data: Option<String>,
    /// File with the network's configuration, version 1 or 2, in YAML [DHCP on the first NIC]
    #[arg(long, value_name = "FILE")]
    network_config: Option<String>,
    /// File with vendor data, which count less than user data
    #[arg(long, value_name = "FILE")]
    vendor_data: Option<String>,
    /// Public key that may log in as the image's user: a file like ~/.ssh/id_ed25519.pub, or the key itself; repeat for more
    #[arg(long = "ssh-key", value_name = "FILE|KEY")]
    ssh_keys: Vec<String>,
    /// Host name [the VM's name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Give it nothing any more
    #[arg(long, conflicts_with_all = ["user_data", "network_config", "vendor_data", "ssh_keys", "hostname"])]
    no_cloud_init: bool,
}

impl CloudInit {
    /// The API's `cloud_init`, if anything was given.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn json(&self) -> Result<Option<Value>, ClientError> {
        if self.no_cloud_init {
            return Ok(Some(Value::Null));
        }
        let mut given = Map::new();
        for (field, file) in [
            ("user_data", &self.user_data),
            ("network_config", &self.network_config),
            ("vendor_data", &self.vendor_data),
        ] {
            if let Some(file) = file {
                given.insert(field.to_owned(), json!(read(file)?));
            }
        }
        let mut keys = Vec::new();
        for key in &self.ssh_keys {
            keys.extend(public_keys(key)?);
        }
        if !keys.is_empty() {
            given.insert("ssh_keys".to_owned(), json!(keys));
        }
        if let Some(name) = &self.hostname {
            given.insert("hostname".to_owned(), json!(name));
        }
        Ok((!given.is_empty()).then_some(Value::Object(given)))
    }
}

fn read(file: &str) -> Result<String, ClientError> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        file => fs::read_to_string(file).map(|content| text = content),
    };
    read.map_err(|source| ClientError::File {
        path: file.into(),
        source,
    })?;
    Ok(text)
}

/// A key, or the keys of a file.
fn public_keys(text: &str) -> Result<Vec<String>, ClientError> {
    // No file's name has a blank after its first word, and no key has none.
    if text.split_whitespace().count() > 1 {
        return Ok(vec![text.trim().to_owned()]);
    }
    let content = read(text)?;
    let lines = content.lines().map(str::trim);
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(keys.map(str::to_owned).collect())
}

/// Prints the files that its cloud-init would be given.
pub(super) async fn show(context: &Context, target: &Target) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let url = format!("{}/cloud-init", path("vms", &target.name));
    let files: CloudInitFiles = client.get(&url).await?;
    if context.format != Format::Table {
        return output::structured(context.format, &files);
    }
    let all = [
        ("meta-data", Some(&files.meta_data)),
        ("user-data", Some(&files.user_data)),
        ("vendor-data", files.vendor_data.as_ref()),
        ("network-config", files.network_config.as_ref()),
    ];
    for (name, content) in all {
        if let Some(content) = content {
            println!("==> {name} <==\n{}\n", content.trim_end());
        }
    }
    Ok(())
}

/// What it is given, in one line, if anything.
pub(super) fn row(vm: &Vm) -> Option<(&'static str, String)> {
    let VmCloudInit {
        hostname,
        ssh_keys,
        user_data,
        vendor_data,
        network_config,
    } = vm.spec.cloud_init.as_ref()?;
    let keys = match ssh_keys.len() {
        0 => None,
        1 => Some("1 SSH key".to_owned()),
        count => Some(format!("{count} SSH keys")),
    };
    let given = |data: &Option<String>, what: &str| data.as_ref().map(|_| what.to_owned());
    let parts = [
        Some(format!(
            "host name {}",
            hostname.as_deref().unwrap_or(vm.spec.name.as_str())
        )),
        keys,
        given(user_data, "user data"),
        given(vendor_data, "vendor data"),
        given(network_config, "network"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Some(("Cloud-init", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_given_as_they_are_or_in_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys.pub");
        fs::write(&file, "ssh-ed25519 AAAA me\n\n# old\nssh-rsa BBBB you\n").unwrap();
        let key = |text: &str| public_keys(text).unwrap();
        assert_eq!(key("ssh-ed25519 AAAA"), ["ssh-ed25519 AAAA"]);
        let file = file.to_string_lossy();
        assert_eq!(key(&file), ["ssh-ed25519 AAAA me", "ssh-rsa BBBB you"]);
        let error = public_keys("nowhere.pub").unwrap_err().to_string();
        assert!(error.contains("nowhere.pub"), "{error}");
    }
}
