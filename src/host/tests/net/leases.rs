//! DHCP: getting, keeping, losing leases.

use std::fs;
use std::net::Ipv4Addr;

use lodge_host::net::state::Dhcp4Phase;
use lodge_host::net::{NetworkState, Shutdown};

use crate::lab::{has_lease, in_namespace, ip, ipv4_of, is_bound, mac, start, wait_for};

const OPTIONS: [&str; 4] = [
    "--dhcp-option=option:dns-server,192.0.2.53",
    "--domain=example.org",
    "--dhcp-option=option:ntp-server,192.0.2.123",
    "--dhcp-authoritative",
];

fn phase(state: &NetworkState) -> Option<Dhcp4Phase> {
    Some(state.network("default")?.ip.dhcp4.as_ref()?.phase)
}

fn obtained(state: &NetworkState) -> Option<jiff::Timestamp> {
    Some(
        state
            .network("default")?
            .ip
            .dhcp4
            .as_ref()?
            .lease
            .as_ref()?
            .obtained_at,
    )
}

#[test]
fn a_lease_is_acquired_and_put_on_the_bridge() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,10m", &OPTIONS);
        let network = start(lab.appliance(Vec::new())).await;
        let state = has_lease(&network).await;
        let info = state.network("default").expect("the network");
        assert_eq!(
            (info.bridge.as_str(), info.uplink, info.mac),
            ("lodge0", Some(mac(1)), Some(mac(1)))
        );
        assert_eq!(info.ip.gateway4, Some(Ipv4Addr::new(192, 0, 2, 1)));
        let address = ipv4_of(&state, "default").pop().expect("an address");
        assert!(
            address.starts_with("192.0.2.1") && address.ends_with("/24"),
            "{address}"
        );
        assert!(
            ip(&["-4", "address", "show", "dev", "eth1"]).is_empty(),
            "addresses live on the bridge"
        );
        let route = ip(&["-4", "route", "show", "default"]);
        assert!(
            route.contains("via 192.0.2.1 dev lodge0 proto dhcp src 192.0.2.1"),
            "{route}"
        );
        assert_eq!(state.dns.servers, [Ipv4Addr::new(192, 0, 2, 53)]);
        assert_eq!(state.dns.search, ["example.org"]);
        assert_eq!(state.ntp_servers, [Ipv4Addr::new(192, 0, 2, 123)]);
        assert_eq!(state.warnings, []);
        let text = fs::read_to_string(lab.resolv_conf()).expect("written");
        assert!(text.contains("nameserver 192.0.2.53\n"), "{text}");
        assert!(
            peer.log().contains("client provides name: alpha"),
            "{}",
            peer.log()
        );
        let shown = ip(&["-4", "address", "show", "dev", "lodge0"]);
        assert!(
            shown.contains("valid_lft 5") || shown.contains("valid_lft 600sec"),
            "the kernel knows the end of the lease: {shown}"
        );
    });
}

/// Takes a minute: the server knows no lease shorter than two.
#[test]
fn a_lease_is_renewed_without_a_flap() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,2m", &OPTIONS);
        let network = start(lab.appliance(Vec::new())).await;
        let first = has_lease(&network).await;
        let count = |kind: &str| peer.log().matches(kind).count();
        let (discovers, requests) = (|| count("DHCPDISCOVER"), || count("DHCPREQUEST"));
        // A machine under load may have had to ask twice.
        let (searched, asked) = (discovers(), requests());
        let recorder = lab.record();
        let later =
            |state: &NetworkState| is_bound(state, "default") && obtained(state) > obtained(&first);
        wait_for(&network, "a renewal", later).await;
        let set = recorder.text().matches("lodge0    inet ").count();
        assert!(
            set <= 3,
            "the address was set {set} times: {}",
            recorder.text()
        );
        assert_eq!(recorder.losses(), [""; 0]);
        assert!(
            discovers() == searched && requests() > asked,
            "{}",
            peer.log()
        );
        let shown = ip(&["-4", "address", "show", "dev", "lodge0"]);
        assert!(shown.contains("valid_lft 1"), "two minutes again: {shown}");
    });
}

#[test]
fn a_lost_signal_keeps_the_lease_and_confirms_it_when_back() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,10m", &OPTIONS);
        let network = start(lab.appliance(Vec::new())).await;
        let before = has_lease(&network).await;
        let discovers = || peer.log().matches("DHCPDISCOVER").count();
        let searched = discovers();
        peer.ip(&["link", "set", "far", "down"]);
        let lost = wait_for(&network, "no carrier", |state| {
            phase(state) == Some(Dhcp4Phase::NoCarrier)
        })
        .await;
        assert_eq!(ipv4_of(&lost, "default"), ipv4_of(&before, "default"));
        let warned = |state: &NetworkState| {
            state
                .warnings
                .iter()
                .any(|warning| warning.message.contains("no signal"))
        };
        wait_for(&network, "a warning", warned).await;
        peer.ip(&["link", "set", "far", "up"]);
        let back = |state: &NetworkState| {
            is_bound(state, "default")
                && obtained(state) > obtained(&before)
                && state.warnings.is_empty()
        };
        let after = wait_for(&network, "the lease back", back).await;
        assert_eq!(ipv4_of(&after, "default"), ipv4_of(&before, "default"));
        assert_eq!(discovers(), searched, "{}", peer.log());
    });
}

#[test]
fn another_network_behind_the_cable_gives_another_address() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,10m", &OPTIONS);
        let network = start(lab.appliance(Vec::new())).await;
        has_lease(&network).await;
        peer.ip(&["link", "set", "far", "down"]);
        wait_for(&network, "no carrier", |state| {
            phase(state) == Some(Dhcp4Phase::NoCarrier)
        })
        .await;
        peer.stop();
        peer.ip(&["link", "set", "far", "up"]);
        peer.serve(
            "198.51.100.1/24",
            "198.51.100.100,198.51.100.110,10m",
            &OPTIONS,
        );
        let moved = |state: &NetworkState| {
            is_bound(state, "default") && ipv4_of(state, "default")[0].starts_with("198.51.100.")
        };
        let state = wait_for(&network, "an address of the other network", moved).await;
        assert_eq!(
            ipv4_of(&state, "default").len(),
            1,
            "the old address is gone"
        );
        assert_eq!(
            state.network("default").expect("the network").ip.gateway4,
            Some(Ipv4Addr::new(198, 51, 100, 1))
        );
        assert!(peer.log().contains("DHCPNAK"), "{}", peer.log());
    });
}

#[test]
fn a_refused_renewal_leads_to_a_new_lease() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,10m", &OPTIONS);
        let network = start(lab.appliance(Vec::new())).await;
        has_lease(&network).await;
        network.shutdown(Shutdown::LeaveInPlace).await;
        peer.stop();
        peer.serve("192.0.2.1/24", "192.0.2.200,192.0.2.210,10m", &OPTIONS);
        // A new manager renews at once.
        let network = start(lab.appliance(Vec::new())).await;
        let moved = |state: &NetworkState| {
            is_bound(state, "default") && ipv4_of(state, "default")[0].starts_with("192.0.2.2")
        };
        let state = wait_for(&network, "an address of the new range", moved).await;
        assert_eq!(ipv4_of(&state, "default").len(), 1);
        assert!(peer.log().contains("DHCPNAK"), "{}", peer.log());
    });
}

#[test]
fn an_address_in_use_is_declined() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve(
            "192.0.2.1/24",
            "192.0.2.100,192.0.2.110,10m",
            &[
                "--dhcp-host=52:54:00:00:00:01,192.0.2.105",
                "--dhcp-authoritative",
            ],
        );
        peer.ip(&["address", "add", "192.0.2.105/32", "dev", "lo"]);
        let network = start(lab.appliance(Vec::new())).await;
        let state = has_lease(&network).await;
        assert_ne!(ipv4_of(&state, "default"), ["192.0.2.105/24"]);
        assert!(peer.log().contains("DHCPDECLINE"), "{}", peer.log());
    });
}

#[test]
fn a_restarted_manager_takes_everything_over() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,10m", &OPTIONS);
        let network = start(lab.appliance(Vec::new())).await;
        let before = has_lease(&network).await;
        let discovers = || peer.log().matches("DHCPDISCOVER").count();
        let searched = discovers();
        let tap = network
            .attach_tap("default", "guest/0", None, 1)
            .await
            .expect("a tap");
        let recorder = lab.record();
        for how in ["asked to end", "dropped"] {
            if how == "dropped" {
                drop(start(lab.appliance(Vec::new())).await);
            } else {
                network.shutdown(Shutdown::LeaveInPlace).await;
            }
            let next = start(lab.appliance(Vec::new())).await;
            assert_eq!(
                ipv4_of(&next.state(), "default"),
                ipv4_of(&before, "default"),
                "at once"
            );
            let renewed = |state: &NetworkState| {
                is_bound(state, "default") && obtained(state) > obtained(&before)
            };
            let after = wait_for(&next, "a renewal", renewed).await;
            let (old, new) = (
                before.network("default").expect("one"),
                after.network("default").expect("one"),
            );
            assert_eq!(
                (new.index, new.uplink, new.mac),
                (old.index, old.uplink, old.mac)
            );
            assert_eq!(new.taps.as_slice(), std::slice::from_ref(&tap.name));
            next.shutdown(Shutdown::LeaveInPlace).await;
        }
        assert_eq!(recorder.losses(), [""; 0]);
        assert_eq!(discovers(), searched, "{}", peer.log());
    });
}

#[test]
fn nobody_answering_is_said_and_tried_on() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        let network = start(lab.appliance(Vec::new())).await;
        let warned = |state: &NetworkState| {
            state
                .warnings
                .iter()
                .any(|warning| warning.message.contains("no DHCP server"))
        };
        wait_for(&network, "a warning", warned).await;
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,10m", &OPTIONS);
        wait_for(&network, "a lease", |state| {
            is_bound(state, "default") && state.warnings.is_empty()
        })
        .await;
    });
}

#[test]
fn taking_down_gives_the_lease_back() {
    in_namespace(async |lab| {
        let mut peer = lab.peer(1);
        peer.serve("192.0.2.1/24", "192.0.2.100,192.0.2.110,10m", &OPTIONS);
        let network = start(lab.appliance(Vec::new())).await;
        has_lease(&network).await;
        network.shutdown(Shutdown::TearDown).await;
        assert!(!ip(&["link", "show"]).contains("lodge0"));
        assert_eq!(ip(&["-4", "address", "show"]), "");
        let began = std::time::Instant::now();
        while !peer.log().contains("DHCPRELEASE") {
            assert!(began.elapsed().as_secs() < 10, "no release: {}", peer.log());
            tokio::task::yield_now().await;
        }
    });
}
