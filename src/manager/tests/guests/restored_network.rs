//! Networks that come with a configuration, in a network namespace of their own.

use std::process::Command;

use lodge_api::configuration::{Configuration, RestoreOutcome};
use lodge_api::network::NetworkCreate;
use lodge_api::{ErrorCode, Name};
use lodge_manager::IfMatch;
use serde_json::{Value, json};

use crate::configuration::restore;
use crate::support::{self, Host, admin};

/// Links of this host, and one of another.
const LINKS: [&str; 2] = ["52:54:00:aa:00:01", "52:54:00:aa:00:02"];
const ELSEWHERE: &str = "52:54:00:0d:00:01";

/// Gives this process's network namespace two links.
pub fn add_links() {
    let mut ip = Command::new("ip");
    ip.args(["link", "add", "up0", "address", LINKS[0], "type", "veth"]);
    ip.args(["peer", "name", "up1", "address", LINKS[1]]);
    assert!(ip.status().expect("ip").success());
}

/// The configuration with another uplink of a network.
fn with_uplink(configuration: &Configuration, network: &str, uplink: &Value) -> Configuration {
    let mut other = configuration.clone();
    let mut records = other.records.iter_mut();
    let record = records.find(|record| record.value["name"] == network);
    record.expect("it is there").value["uplink"] = uplink.clone();
    other
}

async fn delete(host: &Host, network: &Name) {
    let caller = admin();
    let deleted = host
        .manager
        .network_delete(&caller, network.as_str(), IfMatch::Any);
    deleted.await.unwrap();
}

/// A guest runs on the network `lan`.
pub async fn networks_are_restored(host: &Host) {
    let manager = &host.manager;
    let spare = support::name("spare");
    let create = NetworkCreate {
        name: spare.clone(),
        uplink: None,
    };
    let made = manager.network_create(&admin(), create).await.unwrap();
    let all = manager.configuration_view(&admin()).unwrap();
    let mut links = all.links.iter().map(|link| link.mac.as_str());
    assert!(links.any(|mac| mac == LINKS[0]), "{:?}", all.links);
    delete(host, &spare).await;

    // As it was; then with an uplink of another host, which has to be said.
    restore(host, &all, &[]).await.unwrap();
    let back = manager.network_view("spare").unwrap();
    assert_eq!((back.id, back.uplink), (made.id, None));
    assert!(!back.bridge.is_empty());
    delete(host, &spare).await;
    let elsewhere = json!({"kind": "mac", "mac": ELSEWHERE});
    let lost = with_uplink(&all, "spare", &elsewhere);
    let problem = restore(host, &lost, &[]).await.unwrap_err();
    assert!(problem.pointer.unwrap().ends_with("/value/uplink"));
    let hint = problem.hint.unwrap();
    assert!(LINKS.iter().all(|link| hint.contains(link)), "{hint}");
    assert!(manager.network_view("spare").is_err());
    for (link, outcome) in LINKS
        .into_iter()
        .zip([RestoreOutcome::Added, RestoreOutcome::Replaced])
    {
        let restored = restore(host, &lost, &[(ELSEWHERE, link)]).await.unwrap();
        let mut objects = restored.objects.iter();
        let spare = objects.find(|object| object.name == "spare").unwrap();
        assert_eq!(spare.outcome, outcome);
        let network = manager.network_view("spare").unwrap();
        assert_eq!(network.uplink.as_deref(), Some(link));
    }

    // A bridge that a guest is on stays as it is, and so does all the rest.
    let before = manager.configuration_view(&admin()).unwrap().records;
    let here = json!({"kind": "mac", "mac": LINKS[0]});
    let busy = with_uplink(&all, "lan", &here);
    let problem = restore(host, &busy, &[]).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse, "{problem}");
    assert!(problem.pointer.unwrap().ends_with("/value/uplink"));
    let taken = with_uplink(&lost, "lan", &elsewhere);
    let problem = restore(host, &taken, &[(ELSEWHERE, LINKS[0])]).await;
    let problem = problem.unwrap_err();
    assert!(problem.detail.contains("is the uplink of"), "{problem}");
    let after = manager.configuration_view(&admin()).unwrap().records;
    assert_eq!(after, before);
    let network = manager.network_view("spare").unwrap();
    assert_eq!(network.uplink.as_deref(), Some(LINKS[1]));
    delete(host, &spare).await;
}
