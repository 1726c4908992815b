//! The host's network: several cards, static addresses, cables pulled and plugged.

use lodge_tests::host::{Host, SEED};
use lodge_tests::machine::{Builder, Nic, mac};
use serde_json::Value;

#[test]
fn a_pulled_cable_is_noticed_and_the_address_comes_back() {
    let mut host = Host::boot(
        Builder::new()
            // The second's cable is pulled: QEMU's e1000e does not tell when that happens.
            .nics(&[Nic::E1000e, Nic::Virtio])
            .memory_mib(1536),
    )
    .unwrap();
    let system = host.cli.json(&["system", "show"]).unwrap();
    let links = system["links"].as_array().unwrap();
    assert_eq!(links.len(), 2, "{system}");
    assert!(links.iter().all(|link| link["carrier"] == true), "{system}");
    assert!(system.to_string().contains("10.0.2.15"), "{system}");

    host.machine.qmp.set_link("nic1", false).unwrap();
    let about = format!("link {} (", mac(1));
    let says = |words: &'static str| {
        let about = about.clone();
        move |event: &Value| {
            let message = event["message"].as_str().unwrap_or_default();
            Ok(message.starts_with(&about) && message.contains(words))
        }
    };
    host.wait_event("system", says("has lost its signal"))
        .unwrap();
    host.machine.qmp.set_link("nic1", true).unwrap();
    host.wait_event("system", says("has a signal")).unwrap();

    // The card of the API itself: the API goes away and comes back by itself.
    host.machine.qmp.set_link("nic0", false).unwrap();
    host.machine.qmp.set_link("nic0", true).unwrap();
    host.cli.ok(&["system", "show"]).unwrap();
    host.shut_down().unwrap();
}

#[test]
fn a_static_address_from_the_seed() {
    let seed = format!(
        "{SEED}\n[[network]]\nmac = \"{}\"\nmethod = \"static\"\naddress = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\ndns = [\"10.0.2.3\"]\n",
        mac(0)
    );
    let host = Host::boot_with_password(
        &Builder::new().seed(&seed).memory_mib(1536),
        Some(lodge_tests::host::PASSWORD),
    )
    .unwrap();
    let network = host.cli.json(&["network", "show", "default"]).unwrap();
    assert!(
        network["addresses"].to_string().contains("10.0.2.15/24"),
        "{network}"
    );
    host.shut_down().unwrap();
}
