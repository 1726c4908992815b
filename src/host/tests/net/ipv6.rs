//! IPv6 autoconfiguration.

use std::net::IpAddr;

use lodge_host::net::{HostNetwork, NetworkSpec, NetworkState};

use crate::lab::{in_namespace, ip, wait_for};

fn has_prefix(state: &NetworkState, prefix: &str) -> bool {
    state.reachable_addresses().iter().any(
        |address| matches!(address, IpAddr::V6(address) if address.to_string().starts_with(prefix)),
    )
}

#[test]
fn addresses_come_from_router_advertisements() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.ip(&["address", "add", "2001:db8:1::1/64", "dev", "far", "nodad"]);
        peer.serve_with(&[
            "--enable-ra",
            "--dhcp-range=2001:db8:1::,ra-only,64,10m",
            "--ra-param=far,4",
        ]);
        let network = HostNetwork::start(lab.appliance(Vec::new()))
            .await
            .expect("started");
        let state = wait_for(&network, "an address", |state| {
            has_prefix(state, "2001:db8:1:")
        })
        .await;
        let info = state.network("default").expect("one");
        let address = info
            .ip
            .addresses
            .iter()
            .find(|address| address.address.to_string().starts_with("2001:db8:1:"))
            .expect("one");
        assert_eq!(
            address.address.to_string(),
            "2001:db8:1:0:5054:ff:fe00:1/64",
            "made from the link's MAC address"
        );
        assert!(address.dynamic);
        wait_for(&network, "a router", |state| {
            state
                .network("default")
                .is_some_and(|network| network.ip.gateway6.is_some())
        })
        .await;
        assert_eq!(
            ip(&["-6", "address", "show", "dev", "eth1"]),
            "",
            "the link below has none"
        );
    });
}

#[test]
fn guests_of_an_isolated_network_cannot_configure_the_host() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.ip(&["address", "add", "2001:db8:2::1/64", "dev", "far", "nodad"]);
        peer.serve_with(&[
            "--enable-ra",
            "--dhcp-range=2001:db8:2::,ra-only,64,10m",
            "--ra-param=far,4",
        ]);
        let mut config = lab.hosted();
        config.networks.push(NetworkSpec::isolated("inner"));
        let network = HostNetwork::start(config).await.expect("started");
        // A machine of guests on the network, cabled by hand.
        std::fs::write("/proc/sys/net/ipv6/conf/eth1/disable_ipv6", "1").expect("written");
        ip(&["link", "set", "eth1", "master", "lodge0", "up"]);
        wait_for(&network, "the cable", |state| {
            state.links.iter().any(|link| link.carrier)
        })
        .await;
        let heard = tokio::time::timeout(
            std::time::Duration::from_secs(6),
            network.watch().wait_for(|state| has_prefix(state, "2001:")),
        )
        .await
        .is_ok();
        assert!(!heard, "{:#?}", network.state());
        assert_eq!(ip(&["-6", "address", "show", "dev", "lodge0"]), "");
    });
}
