//! The disc from which a guest's cloud-init learns what it is to be (the NoCloud data source).

mod check;
mod iso9660;

use std::fs::File;
use std::io::{self, Write};

use lodge_api::vm::{CloudInitFiles, VmCloudInit, VmSpec};
use lodge_api::{ErrorCode, Problem};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub(crate) use self::check::check;
use self::iso9660::Entry;
use crate::vms::VmRecord;
use crate::{Manager, catalogue};

/// Label of the disc, by which cloud-init finds it.
const LABEL: &str = "CIDATA";

/// User data of a guest that was given none: without the file, cloud-init takes the disc for none of its own.
const NO_USER_DATA: &str = "#cloud-config\n{}\n";

/// The files for a guest.
fn files(id: Uuid, spec: &VmSpec, given: &VmCloudInit) -> CloudInitFiles {
    let hostname = given.hostname.as_deref().unwrap_or(spec.name.as_str());
    // A guest that is given something else is another instance to cloud-init, which then does what it is told anew.
    let mut digest = Sha256::new();
    let all = json!([hostname, given]).to_string();
    digest.update(all.as_bytes());
    let [a, b, c, d, ..] = <[u8; 32]>::from(digest.finalize());
    let instance_id = format!("{id}-{:08x}", u32::from_be_bytes([a, b, c, d]));
    // JSON is YAML.
    let mut meta = json!({"instance-id": instance_id, "local-hostname": hostname});
    if !given.ssh_keys.is_empty() {
        meta["public-keys"] = json!(given.ssh_keys);
    }
    CloudInitFiles {
        meta_data: format!("{meta:#}\n"),
        instance_id,
        user_data: given
            .user_data
            .as_deref()
            .unwrap_or(NO_USER_DATA)
            .to_owned(),
        vendor_data: given.vendor_data.clone(),
        network_config: given.network_config.clone(),
    }
}

/// The disc with these files.
fn image(files: &CloudInitFiles) -> Vec<u8> {
    let mut entries = vec![
        Entry::new("meta-data", &files.meta_data),
        Entry::new("user-data", &files.user_data),
    ];
    let more = [
        ("network-config", &files.network_config),
        ("vendor-data", &files.vendor_data),
    ];
    for (name, content) in more {
        entries.extend(content.as_ref().map(|content| Entry::new(name, content)));
    }
    iso9660::image(LABEL, entries)
}

/// The disc for a guest that is to have one, in memory that nobody can change any more.
///
/// # Errors
/// When the process is out of memory or descriptors.
pub(crate) fn disc(record: &VmRecord) -> io::Result<Option<File>> {
    let Some(given) = &record.spec.cloud_init else {
        return Ok(None);
    };
    let image = image(&files(record.id, &record.spec, given));
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"cloud-init", flags)?);
    file.write_all(&image)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(Some(file))
}

impl Manager {
    /// What cloud-init of a guest would be given if it was started now.
    ///
    /// # Errors
    /// `NotFound` for a guest that does not exist, or is given nothing.
    pub fn vm_cloud_init(&self, key: &str) -> Result<CloudInitFiles, Problem> {
        let vm = catalogue::find::<VmRecord>(&self.core.snapshot(), key)?.value;
        let Some(given) = &vm.spec.cloud_init else {
            let detail = format!("the guest \"{}\" has no `cloud_init`", vm.spec.name);
            return Err(Problem::new(ErrorCode::NotFound, detail).with_hint(
                "set it, even to an empty object, and its cloud-init is given a name at least",
            ));
        };
        Ok(files(vm.id, &vm.spec, given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cloud_init: &serde_json::Value) -> VmSpec {
        let json = json!({"name": "web", "cloud_init": cloud_init});
        serde_json::from_value(json).unwrap()
    }

    fn files_of(cloud_init: &serde_json::Value) -> CloudInitFiles {
        let spec = spec(cloud_init);
        files(Uuid::from_u128(7), &spec, spec.cloud_init.as_ref().unwrap())
    }

    #[test]
    fn a_guest_that_is_given_nothing_has_its_name() {
        let files = files_of(&json!({}));
        let meta: serde_json::Value = serde_json::from_str(&files.meta_data).unwrap();
        assert_eq!(meta["local-hostname"], "web");
        assert_eq!(meta["instance-id"], files.instance_id);
        assert!(meta.get("public-keys").is_none());
        assert_eq!(files.user_data, NO_USER_DATA);
    }

    #[test]
    fn another_instance_is_whoever_is_given_something_else() {
        let first = files_of(&json!({"user_data": "#!/bin/sh\n"}));
        assert_eq!(first, files_of(&json!({"user_data": "#!/bin/sh\n"})));
        assert!(
            first
                .instance_id
                .starts_with("00000000-0000-0000-0000-000000000007-")
        );
        for other in [
            json!({"user_data": "#!/bin/bash\n"}),
            json!({"user_data": "#!/bin/sh\n", "hostname": "db"}),
            json!({"user_data": "#!/bin/sh\n", "ssh_keys": ["ssh-ed25519 AAAA me"]}),
        ] {
            assert_ne!(first.instance_id, files_of(&other).instance_id);
        }
    }
}
