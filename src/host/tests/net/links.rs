//! Several links, fixed addresses, links that come and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lodge_host::net::{
    Addressing, Ipv4Config, Ipv6Config, LinkConfig, NetworkSpec, NetworkState, Uplink,
};

use crate::lab::{has_lease, in_namespace, ip, ipv4_of, is_bound, mac, start, wait_for};

fn fixed(number: u8, address: &str, gateway: [u8; 4]) -> LinkConfig {
    let ipv4 = Ipv4Config::Static {
        addresses: vec![address.parse().expect("an address")],
        gateway: Some(Ipv4Addr::from(gateway)),
    };
    let dns = vec![IpAddr::from([192, 0, 2, 53])];
    LinkConfig {
        mac: mac(number),
        addressing: Addressing {
            ipv4,
            ipv6: Ipv6Config::Disabled,
            dns,
            ..Addressing::default()
        },
    }
}

#[test]
fn fixed_addresses_are_set_at_once() {
    in_namespace(async |lab| {
        let _peer = lab.peer(1);
        let config = lab.appliance(vec![fixed(1, "192.0.2.10/24", [192, 0, 2, 1])]);
        let network = start(config.clone()).await;
        let state = network.state();
        assert_eq!(ipv4_of(&state, "default"), ["192.0.2.10/24"]);
        assert_eq!(state.reachable_addresses(), [IpAddr::from([192, 0, 2, 10])]);
        assert_eq!(state.dns.servers, [IpAddr::from([192, 0, 2, 53])]);
        assert!(
            ip(&["-4", "route", "show", "default"])
                .contains("via 192.0.2.1 dev lodge0 proto static src 192.0.2.10 metric 100")
        );
        assert_eq!(
            ip(&["-6", "address", "show", "dev", "lodge0"]),
            "",
            "IPv6 is off"
        );

        // Somebody meddles: it is put right again.
        ip(&["address", "del", "192.0.2.10/24", "dev", "lodge0"]);
        ip(&["address", "add", "203.0.113.9/24", "dev", "lodge0"]);
        network.refresh().await.expect("looked");
        assert_eq!(ipv4_of(&network.state(), "default"), ["192.0.2.10/24"]);
        assert!(ip(&["-4", "route", "show", "default"]).contains("via 192.0.2.1"));
    });
}

#[test]
fn every_link_comes_up_and_the_first_is_the_uplink() {
    in_namespace(async |lab| {
        let mut peers: Vec<_> = (1..=3).map(|number| lab.peer(number)).collect();
        peers[0].serve(
            "192.0.2.1/24",
            "192.0.2.100,192.0.2.110,10m",
            &["--dhcp-authoritative"],
        );
        peers[1].serve(
            "198.51.100.1/24",
            "198.51.100.100,198.51.100.110,10m",
            &["--dhcp-authoritative"],
        );
        let network =
            start(lab.appliance(vec![fixed(3, "203.0.113.10/24", [203, 0, 113, 1])])).await;
        // The configured link is preferred as uplink; the other two are addressed themselves.
        let ready = |state: &NetworkState| {
            let leased = |number| {
                state.link(mac(number)).is_some_and(|link| {
                    link.ip
                        .addresses
                        .iter()
                        .any(|address| address.address.address().is_ipv4())
                })
            };
            leased(1) && leased(2)
        };
        let state = wait_for(&network, "two leases", ready).await;
        assert_eq!(state.network("default").expect("one").uplink, Some(mac(3)));
        assert_eq!(ipv4_of(&state, "default"), ["203.0.113.10/24"]);
        assert!(
            state
                .links
                .iter()
                .all(|link| link.up && link.carrier && link.managed)
        );
        assert_eq!(
            state
                .links
                .iter()
                .map(|link| link.driver.as_deref())
                .collect::<Vec<_>>(),
            [Some("veth"); 3]
        );
        let routes = ip(&["-4", "route", "show", "default"]);
        let lines: Vec<_> = routes.lines().collect();
        assert!(
            lines[0].contains("203.0.113.1 dev lodge0") && lines[0].contains("metric 100"),
            "{routes}"
        );
        assert!(
            lines[1].contains("192.0.2.1 dev eth1") && lines[1].contains("metric 110"),
            "{routes}"
        );
        assert!(
            lines[2].contains("198.51.100.1 dev eth2") && lines[2].contains("metric 120"),
            "{routes}"
        );
    });
}

#[test]
fn a_bridge_per_link() {
    in_namespace(async |lab| {
        let mut peers: Vec<_> = (1..=2).map(|number| lab.peer(number)).collect();
        peers[0].serve(
            "192.0.2.1/24",
            "192.0.2.100,192.0.2.110,10m",
            &["--dhcp-authoritative"],
        );
        peers[1].serve(
            "198.51.100.1/24",
            "198.51.100.100,198.51.100.110,10m",
            &["--dhcp-authoritative"],
        );
        let network = start(lab.appliance(Vec::new())).await;
        has_lease(&network).await;
        let spec = NetworkSpec {
            uplink: Uplink::Mac(mac(2)),
            ..NetworkSpec::isolated("storage")
        };
        let info = network.add_network(spec.clone()).await.expect("added");
        assert_eq!(
            (info.bridge.as_str(), info.uplink, info.mac),
            ("lodge1", Some(mac(2)), Some(mac(2)))
        );
        let state = wait_for(&network, "a lease", |state| is_bound(state, "storage")).await;
        assert!(ipv4_of(&state, "storage")[0].starts_with("198.51.100."));

        let taken = network
            .add_network(NetworkSpec {
                name: "again".to_owned(),
                ..spec
            })
            .await
            .expect_err("taken");
        assert!(
            taken.to_string().contains("uplink of network 'storage'"),
            "{taken}"
        );

        network
            .remove_network("storage", false)
            .await
            .expect("removed");
        let addressed = |state: &NetworkState| {
            state
                .link(mac(2))
                .is_some_and(|link| link.network.is_none() && link.ip.gateway4.is_some())
        };
        wait_for(&network, "the address back on the link", addressed).await;
        assert!(!ip(&["link", "show"]).contains("lodge1"));
    });
}

#[test]
fn a_link_may_come_late_and_go_again() {
    in_namespace(async |lab| {
        let network = start(lab.appliance(Vec::new())).await;
        let alone = network.state();
        assert!(
            alone.links.is_empty()
                && alone
                    .warnings
                    .iter()
                    .any(|warning| warning.message.contains("no Ethernet link"))
        );
        assert_eq!(alone.network("default").expect("one").uplink, None);
        let mut peer = lab.peer(7);
        peer.serve(
            "192.0.2.1/24",
            "192.0.2.100,192.0.2.110,10m",
            &["--dhcp-authoritative"],
        );
        let state = has_lease(&network).await;
        assert_eq!(state.network("default").expect("one").uplink, Some(mac(7)));
        drop(peer);
        let gone =
            |state: &NetworkState| state.links.is_empty() && ipv4_of(state, "default").is_empty();
        let state = wait_for(&network, "the link gone", gone).await;
        assert_eq!(state.network("default").expect("one").uplink, None);
        let mut peer = lab.peer(8);
        peer.serve(
            "198.51.100.1/24",
            "198.51.100.100,198.51.100.110,10m",
            &["--dhcp-authoritative"],
        );
        let state = wait_for(&network, "another lease", |state| {
            is_bound(state, "default")
        })
        .await;
        let info = state.network("default").expect("one");
        assert_eq!((info.uplink, info.mac), (Some(mac(8)), Some(mac(8))));
    });
}

#[test]
fn a_renamed_link_is_the_same_link() {
    in_namespace(async |lab| {
        let _peer = lab.peer(1);
        let network = start(lab.appliance(vec![fixed(1, "192.0.2.10/24", [192, 0, 2, 1])])).await;
        ip(&["link", "set", "eth1", "down"]);
        ip(&["link", "set", "eth1", "name", "enp9s0"]);
        let renamed = |state: &NetworkState| {
            state
                .link(mac(1))
                .is_some_and(|link| link.name == "enp9s0" && link.up && link.carrier)
        };
        let state = wait_for(&network, "the new name", renamed).await;
        assert_eq!(ipv4_of(&state, "default"), ["192.0.2.10/24"]);
        assert_eq!(state.network("default").expect("one").uplink, Some(mac(1)));
    });
}

#[test]
fn a_flapping_link_does_not_keep_the_task_busy() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve(
            "192.0.2.1/24",
            "192.0.2.100,192.0.2.110,10m",
            &["--dhcp-authoritative"],
        );
        let network = start(lab.appliance(Vec::new())).await;
        let before = has_lease(&network).await;
        let mut watch = network.watch();
        let mut states = 0;
        for _ in 0..40 {
            peer.ip(&["link", "set", "far", "down"]);
            tokio::task::yield_now().await;
            peer.ip(&["link", "set", "far", "up"]);
            tokio::task::yield_now().await;
            if watch.has_changed().expect("it runs") {
                watch.mark_unchanged();
                states += 1;
            }
        }
        assert!(states < 40, "{states} states published");
        let after = has_lease(&network).await;
        assert_eq!(ipv4_of(&after, "default"), ipv4_of(&before, "default"));
        let messages =
            peer.log().matches("DHCPREQUEST").count() + peer.log().matches("DHCPDISCOVER").count();
        assert!(messages < 45, "{messages} messages");
    });
}

#[test]
fn mtu_comes_from_the_configuration_or_the_lease() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve(
            "192.0.2.1/24",
            "192.0.2.100,192.0.2.110,10m",
            &["--dhcp-authoritative", "--dhcp-option=option:mtu,1400"],
        );
        let network = start(lab.appliance(Vec::new())).await;
        let small = |state: &NetworkState| {
            state
                .network("default")
                .is_some_and(|network| network.mtu == 1400)
                && state.links[0].mtu == 1400
        };
        wait_for(&network, "the MTU of the lease", small).await;
        let tap = network
            .attach_tap("default", "guest/0", None, 1)
            .await
            .expect("a tap");
        assert_eq!(tap.mtu, 1400);
        let small = network
            .attach_tap("default", "guest/1", Some(1300), 1)
            .await
            .expect("a tap");
        network.refresh().await.expect("looked");
        assert_eq!(
            (
                small.mtu,
                network.state().network("default").expect("one").mtu
            ),
            (1300, 1400),
            "one small guest is not everybody's"
        );
        network
            .shutdown(lodge_host::net::Shutdown::LeaveInPlace)
            .await;

        let mut link = fixed(1, "192.0.2.10/24", [192, 0, 2, 1]);
        link.addressing.mtu = Some(9000);
        let network = start(lab.appliance(vec![link])).await;
        let state = network.state();
        assert_eq!(
            (
                state.links[0].mtu,
                state.network("default").expect("one").mtu
            ),
            (9000, 9000)
        );
    });
}

#[test]
fn fixed_ipv6_addresses() {
    in_namespace(async |lab| {
        let _peer = lab.peer(1);
        let gateway: Ipv6Addr = "fe80::1".parse().expect("an address");
        let ipv6 = Ipv6Config::Static {
            addresses: vec!["2001:db8::10/64".parse().expect("an address")],
            gateway: Some(gateway),
        };
        let addressing = Addressing {
            ipv4: Ipv4Config::Disabled,
            ipv6,
            ..Addressing::default()
        };
        let network = start(lab.appliance(vec![LinkConfig {
            mac: mac(1),
            addressing,
        }]))
        .await;
        let address: Ipv6Addr = "2001:db8::10".parse().expect("an address");
        let state = wait_for(&network, "the address", |state| {
            state.reachable_addresses() == [IpAddr::V6(address)]
        })
        .await;
        assert_eq!(
            state.network("default").expect("one").ip.gateway6,
            Some(gateway)
        );
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv6/conf/lodge0/accept_ra")
                .expect("read")
                .trim(),
            "0"
        );
    });
}
