//! Networks without uplink, taps, frames between them, and what is refused.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use lodge_host::net::{NetError, NetworkSpec, Shutdown, Uplink, open_vhost_net, tap_name};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::lab::{in_namespace, ip, ipv4_of, mac, start, wait_for};

/// A virtio network header that says nothing.
const HEADER: [u8; 12] = [0; 12];
const GUEST: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 1];

/// A frame of an experimental type (IEEE 802, 88b5) to everybody.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut frame = [&HEADER[..], &[0xff; 6], &GUEST, &[0x88, 0xb5], text].concat();
    frame.resize(frame.len().max(HEADER.len() + 60), 0);
    frame
}

/// The next frame from a tap that `fits`, without its header.
fn receive(tap: &OwnedFd, fits: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let began = Instant::now();
    let mut buffer = [0; 2048];
    while began.elapsed() < Duration::from_secs(5) {
        let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(200_u16)).expect("polled");
        while let Ok(length) = read(tap, &mut buffer) {
            if fits(&buffer[HEADER.len()..length]) {
                return Some(buffer[HEADER.len()..length].to_vec());
            }
        }
    }
    None
}

#[test]
fn taps_of_a_network_hear_each_other() {
    in_namespace(async |lab| {
        let mut config = lab.hosted();
        config.networks.push(NetworkSpec {
            addresses: vec!["10.77.0.1/24".parse().expect("an address")],
            ..NetworkSpec::isolated("inner")
        });
        let network = start(config).await;
        assert_eq!(ipv4_of(&network.state(), "inner"), ["10.77.0.1/24"]);
        let first = network
            .attach_tap("inner", "a/0", None, 1)
            .await
            .expect("a tap");
        let second = network
            .attach_tap("inner", "b/0", None, 1)
            .await
            .expect("a tap");
        assert_eq!(first.name, tap_name("a/0"));
        write(&first.fd, &frame(b"hello")).expect("written");
        let heard =
            receive(&second.fd, |frame| frame.get(12..14) == Some(&[0x88, 0xb5])).expect("a frame");
        assert_eq!(heard[14..19], *b"hello");
        assert!(read(&second.fd, &mut [0; 2048]).is_err(), "non-blocking");

        // The host is there too, and answers for its address.
        let mut request = [
            &HEADER[..],
            &[0xff; 6],
            &GUEST,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &GUEST,
            &[10, 77, 0, 9],
            &[0; 6],
            &[10, 77, 0, 1],
        ]
        .concat();
        request.resize(HEADER.len() + 60, 0);
        write(&first.fd, &request).expect("written");
        let answer = receive(&first.fd, |frame| {
            frame.get(12..14) == Some(&[8, 6]) && frame[21] == 2
        })
        .expect("an answer");
        assert_eq!(answer[28..32], [10, 77, 0, 1]);

        let refused = network
            .remove_network("inner", false)
            .await
            .expect_err("in use");
        assert_eq!(
            refused,
            NetError::NetworkBusy {
                name: "inner".to_owned(),
                taps: 2
            }
        );
        drop((first, second));
        gone(&[tap_name("a/0"), tap_name("b/0")]);
        network
            .remove_network("inner", false)
            .await
            .expect("removed");
        assert!(!ip(&["link", "show"]).contains("lodge0"));
    });
}

#[test]
fn a_tap_reaches_the_uplink_and_outlives_its_network_task() {
    in_namespace(async |lab| {
        let peer = lab.peer(1);
        let network = start(lab.appliance(Vec::new())).await;
        wait_for(&network, "an uplink", |state| {
            state
                .network("default")
                .is_some_and(|network| network.carrier)
        })
        .await;
        let tap = network
            .attach_tap("default", "a/0", None, 1)
            .await
            .expect("a tap");
        network.shutdown(Shutdown::LeaveInPlace).await;
        let before = received(&peer.ip_output(&["-s", "-o", "link", "show", "far"]));
        let began = Instant::now();
        // The first ones may be lost: the kernel takes up to a second to let a new port forward.
        while received(&peer.ip_output(&["-s", "-o", "link", "show", "far"])) < before + 50 {
            write(&tap.fd, &frame(b"out")).expect("written");
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "frames do not arrive"
            );
        }
        drop(tap);
        gone(&[tap_name("a/0")]);
    });
}

/// Waits until taps are gone: a child that another test is just starting has their descriptors for a moment too.
fn gone(taps: &[String]) {
    let began = Instant::now();
    while taps.iter().any(|tap| ip(&["link", "show"]).contains(tap)) {
        assert!(began.elapsed() < Duration::from_secs(20), "{taps:?} stay");
    }
}

/// Packets received, from `ip -s -o link show`.
fn received(text: &str) -> u64 {
    let numbers = text
        .split("RX:")
        .nth(1)
        .expect("statistics")
        .split('\\')
        .nth(1)
        .expect("numbers");
    numbers
        .split_whitespace()
        .nth(1)
        .expect("packets")
        .parse()
        .expect("a number")
}

#[test]
fn names_taken_are_refused_and_nothing_is_left_behind() {
    in_namespace(async |lab| {
        let network = start(lab.hosted()).await;
        let info = network
            .add_network(NetworkSpec::isolated("inner"))
            .await
            .expect("added");
        assert_eq!(info.bridge, "lodge0");
        let again = network
            .add_network(NetworkSpec::isolated("inner"))
            .await
            .expect_err("taken");
        assert_eq!(
            again,
            NetError::NameTaken {
                what: "network",
                name: "inner".to_owned()
            }
        );
        let bridge = NetworkSpec {
            bridge: Some("lodge0".to_owned()),
            ..NetworkSpec::isolated("other")
        };
        let again = network.add_network(bridge).await.expect_err("taken");
        assert_eq!(
            again,
            NetError::NameTaken {
                what: "bridge",
                name: "lodge0".to_owned()
            }
        );
        ip(&[
            "link", "add", "lodge5", "type", "veth", "peer", "name", "other5",
        ]);
        let foreign = NetworkSpec {
            bridge: Some("lodge5".to_owned()),
            ..NetworkSpec::isolated("other")
        };
        let again = network.add_network(foreign).await.expect_err("taken");
        assert_eq!(
            again,
            NetError::NameTaken {
                what: "link",
                name: "lodge5".to_owned()
            }
        );
        assert!(!again.hint().is_empty());
        assert_eq!(network.state().networks.len(), 1);

        let tap = network
            .attach_tap("inner", "a/0", None, 1)
            .await
            .expect("a tap");
        let again = network
            .attach_tap("inner", "a/0", None, 1)
            .await
            .expect_err("held");
        assert_eq!(
            again,
            NetError::NameTaken {
                what: "tap",
                name: tap.name.clone()
            }
        );
        let nowhere = network
            .attach_tap("nowhere", "b/0", None, 1)
            .await
            .expect_err("unknown");
        assert_eq!(
            nowhere,
            NetError::UnknownNetwork {
                name: "nowhere".to_owned()
            }
        );
        let bad = network
            .attach_tap("inner", "c/0", Some(1), 1)
            .await
            .expect_err("too small");
        assert!(matches!(bad, NetError::InvalidConfig { .. }), "{bad:?}");
        assert!(!ip(&["link", "show"]).contains(&tap_name("c/0")));
        network
            .remove_network("inner", true)
            .await
            .expect("by force");
        network.shutdown(Shutdown::LeaveInPlace).await;
        assert_eq!(network.refresh().await, Err(NetError::Stopped));
    });
}

#[test]
fn a_bridge_without_a_name_of_its_own_is_found_again() {
    in_namespace(async |lab| {
        ip(&["link", "add", "lodge0", "type", "bridge"]);
        let network = start(lab.hosted()).await;
        let before = network
            .add_network(NetworkSpec::isolated("inner"))
            .await
            .expect("added");
        assert_eq!(before.bridge, "lodge1", "lodge0 is somebody else's");
        network.shutdown(Shutdown::LeaveInPlace).await;
        let mut config = lab.hosted();
        config.networks = vec![
            NetworkSpec::isolated("first"),
            NetworkSpec::isolated("inner"),
        ];
        let network = start(config).await;
        let state = network.state();
        let bridge = |name: &str| {
            state
                .network(name)
                .map(|network| (network.bridge.clone(), network.index))
        };
        assert_eq!(bridge("inner"), Some(("lodge1".to_owned(), before.index)));
        assert_eq!(
            bridge("first").map(|(name, _)| name).as_deref(),
            Some("lodge2")
        );
    });
}

#[test]
fn a_hosted_lodge_touches_nothing_it_was_not_told_to() {
    in_namespace(async |lab| {
        let (_first, _second) = (lab.peer(1), lab.peer(2));
        ip(&["address", "add", "192.0.2.10/24", "dev", "eth1"]);
        ip(&["link", "set", "eth1", "up"]);
        let mut config = lab.hosted();
        config.networks.push(NetworkSpec {
            uplink: Uplink::Auto,
            ..NetworkSpec::isolated("wishful")
        });
        let network = start(config).await;
        let inner = network
            .add_network(NetworkSpec::isolated("inner"))
            .await
            .expect("added");
        assert_eq!(inner.uplink, None);
        network.refresh().await.expect("looked");
        let uplink = |number| NetworkSpec {
            uplink: Uplink::Mac(mac(number)),
            ..NetworkSpec::isolated("outer")
        };
        let busy = network.add_network(uplink(1)).await.expect_err("in use");
        assert!(
            busy.to_string()
                .contains("it has the address 192.0.2.10/24"),
            "{busy}"
        );
        // The link with an address is untouched, and the other one was taken when asked for.
        let outer = network.add_network(uplink(2)).await.expect("added");
        assert_eq!(
            (outer.uplink, ipv4_of(&network.state(), "outer").len()),
            (Some(mac(2)), 0)
        );
        network.shutdown(Shutdown::TearDown).await;
        assert!(ip(&["address", "show", "dev", "eth1"]).contains("inet 192.0.2.10/24 "));
        let link = ip(&["link", "show", "dev", "eth1"]);
        assert!(
            link.contains("mtu 1500") && !link.contains("master"),
            "{link}"
        );
        assert!(!ip(&["link", "show"]).contains(": lodge"));
    });
}

#[test]
fn a_bridge_that_was_removed_is_made_again() {
    in_namespace(async |lab| {
        let _peer = lab.peer(1);
        let network = start(lab.appliance(Vec::new())).await;
        let before = network.state().network("default").expect("one").index;
        ip(&["link", "del", "lodge0"]);
        let again = wait_for(&network, "the bridge", |state| {
            state.network("default").is_some_and(|network| {
                network.index != 0 && network.index != before && network.carrier
            })
        });
        assert_eq!(
            again.await.network("default").expect("one").uplink,
            Some(mac(1))
        );
    });
}

#[test]
fn vhost_net_is_optional() {
    let there = std::path::Path::new("/dev/vhost-net").exists();
    if nix::unistd::geteuid().is_root() {
        assert_eq!(open_vhost_net().expect("no error").is_some(), there);
    }
}
