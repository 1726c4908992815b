//! Taps that are held to limits.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use lodge_host::net::{HostNetwork, NetError, NetworkSpec, Tap, TapLimits};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::lab::{Lab, in_namespace, start};

/// Bytes of a frame, with the virtio network header before it.
const FRAME: usize = 12 + 1000;

/// A frame of an experimental type (IEEE 802, 88b5) to everybody.
fn frame() -> Vec<u8> {
    let mut frame = [
        &[0; 12][..],
        &[0xff; 6],
        &[0x52, 0x54, 0, 0xaa, 0, 1],
        &[0x88, 0xb5],
    ]
    .concat();
    frame.resize(FRAME, 0);
    frame
}

/// Takes `most` such frames from a tap, or as many as come until none does for a second.
fn take(tap: &OwnedFd, most: usize) -> usize {
    let mut buffer = [0; 2048];
    let (mut taken, mut last) = (0, Instant::now());
    while taken < most && last.elapsed() < Duration::from_secs(1) {
        let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(100_u16)).expect("polled");
        while taken < most
            && let Ok(length) = read(tap, &mut buffer)
        {
            if length == FRAME && buffer[24..26] == [0x88, 0xb5] {
                (taken, last) = (taken + 1, Instant::now());
            }
        }
    }
    taken
}

fn send(tap: &OwnedFd, count: usize) {
    for _ in 0..count {
        write(tap, &frame()).expect("written");
    }
}

async fn two(lab: &Lab) -> (HostNetwork, Tap, Tap) {
    let mut config = lab.hosted();
    config.networks.push(NetworkSpec::isolated("inner"));
    let network = start(config).await;
    let tap = async |key| {
        network
            .attach_tap("inner", key, None, 1)
            .await
            .expect("a tap")
    };
    let (first, second) = (tap("a/0").await, tap("b/0").await);
    (network, first, second)
}

#[test]
fn what_a_guest_receives_waits_its_turn() {
    in_namespace(async |lab| {
        let (network, first, second) = two(&lab).await;
        let slow = TapLimits {
            receive: Some(2_000_000),
            transmit: None,
        };
        network.limit_tap("b/0", slow).await.expect("limited");
        let began = Instant::now();
        send(&first.fd, 180);
        assert_eq!(take(&second.fd, 180), 180, "none is lost");
        // 96 KiB of them come at once, the rest at 250 kB/s.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(300), "{took:?}");
        // Another rate, and none.
        let fast = TapLimits {
            receive: Some(10_000_000_000),
            transmit: None,
        };
        network.limit_tap("b/0", fast).await.expect("limited");
        send(&first.fd, 100);
        assert_eq!(take(&second.fd, 100), 100);
        for _ in 0..2 {
            let none = TapLimits::default();
            network.limit_tap("b/0", none).await.expect("lifted");
        }
        send(&first.fd, 100);
        assert_eq!(take(&second.fd, 100), 100);
    });
}

#[test]
fn what_a_guest_sends_too_fast_is_dropped() {
    in_namespace(async |lab| {
        let (network, first, second) = two(&lab).await;
        let slow = TapLimits {
            receive: None,
            transmit: Some(2_000_000),
        };
        match network.limit_tap("a/0", slow).await {
            Ok(()) => {}
            Err(NetError::KindUnsupported { kind }) => {
                assert!(kind == "cls_matchall" || kind == "act_police", "{kind}");
                println!("this kernel cannot drop what guests send too fast: it has no {kind}");
                return;
            }
            Err(other) => panic!("{other}"),
        }
        send(&first.fd, 450);
        let taken = take(&second.fd, 450);
        // 192 KiB come at once, and a little more while they are sent.
        assert!((150..400).contains(&taken), "{taken}");
        network
            .limit_tap("a/0", TapLimits::default())
            .await
            .expect("lifted");
        send(&first.fd, 450);
        assert_eq!(take(&second.fd, 450), 450);
    });
}

#[test]
fn nothing_passes_a_tap_that_is_down() {
    in_namespace(async |lab| {
        let (network, first, second) = two(&lab).await;
        for key in ["a/0", "b/0"] {
            network.set_tap_up(key, false).await.expect("down");
            // The kernel may refuse it, or drop it.
            let _ = write(&first.fd, &frame());
            assert_eq!(take(&second.fd, 1), 0, "{key}");
            network.set_tap_up(key, true).await.expect("up");
            send(&first.fd, 1);
            assert_eq!(take(&second.fd, 1), 1, "{key}");
        }
        let missing = network.set_tap_up("c/0", true).await;
        assert!(matches!(missing, Err(NetError::UnknownTap { .. })));
    });
}

#[test]
fn a_tap_that_is_not_there_is_not_limited() {
    in_namespace(async |lab| {
        let (network, _first, _second) = two(&lab).await;
        let limited = network.limit_tap("c/0", TapLimits::default()).await;
        assert!(
            matches!(limited, Err(NetError::UnknownTap { .. })),
            "{limited:?}"
        );
    });
}
