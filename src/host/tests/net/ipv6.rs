//! IPv6 autoconfiguration.

use std::net::IpAddr;

use lodge_host::net::{NetworkSpec, NetworkState};

use crate::lab::{in_namespace, ip, start, wait_for};

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
        let network = start(lab.appliance(Vec::new())).await;
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
        let network = start(config).await;
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

/// A router advertisement (RFC 4861, section 4.2) of a prefix, in an Ethernet frame behind a virtio network header.
fn advertisement(prefix: [u8; 8]) -> Vec<u8> {
    let router = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
    let everybody = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let minutes = [0, 0, 2, 0x58];
    let information = [
        &[3, 4, 64, 0xc0],
        &minutes[..],
        &minutes,
        &[0; 4],
        &prefix,
        &[0; 8],
    ]
    .concat();
    let mut message = [&[134, 0, 0, 0, 64, 0, 2, 0x58], &[0; 8][..], &information].concat();
    let pseudo = [
        &router[..],
        &everybody,
        &[0, 0, 0, 48, 0, 0, 0, 58],
        &message,
    ]
    .concat();
    let sum = pseudo.chunks(2).fold(0_u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded");
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [
        0x33, 0x33, 0, 0, 0, 1, 0x52, 0x54, 0, 0xaa, 0, 1, 0x86, 0xdd,
    ];
    let ip = [&[0x60, 0, 0, 0, 0, 48, 58, 255], &router[..], &everybody].concat();
    [&[0; 12], &ethernet[..], &ip, &message].concat()
}

#[test]
fn a_guest_beside_the_uplink_cannot_advertise_itself_as_router() {
    in_namespace(async |lab| {
        let _peer = lab.peer(1);
        let network = start(lab.appliance(Vec::new())).await;
        wait_for(&network, "an uplink", |state| {
            state
                .network("default")
                .is_some_and(|network| network.carrier)
        })
        .await;
        let tap = network
            .attach_tap("default", "guest/0", None, 1)
            .await
            .expect("a tap");
        network.refresh().await.expect("looked");
        let warnings = network.state().warnings;
        assert!(
            !warnings
                .iter()
                .any(|warning| warning.message.contains("IPv6")),
            "{warnings:?}"
        );
        nix::unistd::write(&tap.fd, &advertisement([0x20, 1, 0xd, 0xb8, 0, 0xbb, 0, 0]))
            .expect("written");
        // The same from a port that is no guest's is heard, so the frame is good.
        ip(&["link", "set", &tap.name, "down"]);
        ip(&["link", "set", &tap.name, "name", "neighbour"]);
        ip(&["link", "set", "neighbour", "up"]);
        nix::unistd::write(&tap.fd, &advertisement([0x20, 1, 0xd, 0xb8, 0, 0xaa, 0, 0]))
            .expect("written");
        let state = wait_for(&network, "an address", |state| {
            has_prefix(state, "2001:db8:aa:")
        })
        .await;
        assert!(!has_prefix(&state, "2001:db8:bb:"), "{state:#?}");
    });
}
