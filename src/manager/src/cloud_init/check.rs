//! Whether cloud-init could make anything of what it is to be given.

use lodge_api::Problem;
use lodge_api::vm::VmCloudInit;
use lodge_host::hostname;

/// Most bytes of all together, as JSON: it is part of the guest's record.
const MOST: usize = 8 << 10;

const MOST_KEYS: usize = 16;

/// What user data may begin with.
const BEGINNINGS: [&str; 9] = [
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "## template: jinja",
    "Content-Type:",
    "MIME-Version:",
    "From nobody",
];

/// Refuses what cloud-init would not understand, as far as that is easily seen.
pub(crate) fn check(given: &VmCloudInit) -> Result<(), Problem> {
    let at = |field: &str| format!("/cloud_init/{field}");
    if let Some(name) = &given.hostname {
        hostname::normalize(name).map_err(|problem| Problem::invalid(at("hostname"), problem))?;
    }
    if given.ssh_keys.len() > MOST_KEYS {
        let hint = format!("give at most {MOST_KEYS}, and the others in `user_data`");
        return Err(Problem::invalid(at("ssh_keys"), "too many keys").with_hint(hint));
    }
    for (number, key) in given.ssh_keys.iter().enumerate() {
        check_key(key).map_err(|problem| {
            Problem::invalid(at(&format!("ssh_keys/{number}")), problem)
                .with_hint("give a line as ~/.ssh/id_ed25519.pub has it")
        })?;
    }
    for (field, data) in [
        ("user_data", &given.user_data),
        ("vendor_data", &given.vendor_data),
    ] {
        let Some(data) = data else { continue };
        if !BEGINNINGS.iter().any(|begin| data.starts_with(begin)) {
            let detail = "cloud-init does not know this by its first line";
            let hint =
                "begin with `#cloud-config`, `#!` and a program, `#include`, or a MIME header";
            return Err(Problem::invalid(at(field), detail).with_hint(hint));
        }
    }
    if let Some(network) = &given.network_config
        && !network.contains("version")
    {
        let hint = "give YAML with `version: 2` and `ethernets:`, or version 1";
        let detail = "a network configuration has a version";
        return Err(Problem::invalid(at("network_config"), detail).with_hint(hint));
    }
    check_size(given)
}

fn check_key(key: &str) -> Result<(), &'static str> {
    if key.chars().any(char::is_control) {
        return Err("a key is one line");
    }
    if key.contains("PRIVATE KEY") {
        return Err("this is a private key");
    }
    let words = key.split_whitespace();
    match words.count() {
        0 | 1 => Err("a key has a type and a value"),
        _ => Ok(()),
    }
}

fn check_size(given: &VmCloudInit) -> Result<(), Problem> {
    let bytes = serde_json::to_vec(given).map_or(usize::MAX, |json| json.len());
    if bytes <= MOST {
        return Ok(());
    }
    let detail = format!("{bytes} bytes are too many; {MOST} are the most, as JSON");
    let hint =
        "have cloud-init fetch the rest: user data that begin with `#include` and name its address";
    Err(Problem::invalid("/cloud_init", detail).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(given: serde_json::Value) -> Problem {
        let given: VmCloudInit = serde_json::from_value(given).unwrap();
        check(&given).unwrap_err()
    }

    #[test]
    fn what_cloud_init_would_not_understand_is_pointed_at() {
        for (given, pointer) in [
            (json!({"hostname": "a b"}), "hostname"),
            (json!({"ssh_keys": ["ssh-rsa A", "ssh-rsa"]}), "ssh_keys/1"),
            (json!({"ssh_keys": ["ssh-rsa A\nssh-rsa B"]}), "ssh_keys/0"),
            (
                json!({"ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}),
                "ssh_keys/0",
            ),
            (json!({"ssh_keys": vec!["ssh-rsa A"; 17]}), "ssh_keys"),
            (json!({"user_data": "packages: [curl]"}), "user_data"),
            (json!({"vendor_data": ""}), "vendor_data"),
            (json!({"network_config": "ethernets: {}"}), "network_config"),
        ] {
            let problem = refused(given.clone());
            let pointer = format!("/cloud_init/{pointer}");
            assert_eq!(problem.pointer, Some(pointer), "{given}");
        }
        let much = format!("#cloud-config\n{}", "\n".repeat(4 << 10));
        let problem = refused(json!({"user_data": much}));
        assert_eq!(problem.pointer.as_deref(), Some("/cloud_init"));
        assert!(problem.hint.unwrap().contains("#include"));
    }

    #[test]
    fn what_it_understands_is_taken() {
        let given = json!({
            "hostname": "web.example.org",
            "ssh_keys": ["ssh-ed25519 AAAA me@here", "restrict,pty ssh-rsa AAAA"],
            "user_data": "#cloud-config\npackages: [curl]\n",
            "vendor_data": "#!/bin/sh\n",
            "network_config": "version: 2\nethernets: {}\n",
        });
        let given: VmCloudInit = serde_json::from_value(given).unwrap();
        check(&given).unwrap();
        check(&VmCloudInit::default()).unwrap();
    }
}
