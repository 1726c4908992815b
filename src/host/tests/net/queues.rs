//! Taps with several queues.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use lodge_host::net::{NetError, NetworkSpec, Tap, TapLimits};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::lab::{in_namespace, start};

/// A frame of an experimental type (IEEE 802, 88b5) to everybody, with the virtio network header before it.
fn frame(from: u8) -> Vec<u8> {
    let mut frame = [
        &[0; 12][..],
        &[0xff; 6],
        &[0x52, 0x54, 0, 0xaa, 0, from],
        &[0x88, 0xb5],
    ]
    .concat();
    frame.resize(12 + 60, 0);
    frame
}

fn queues(tap: &Tap) -> Vec<&OwnedFd> {
    std::iter::once(&tap.fd).chain(&tap.further).collect()
}

/// The number of the queue that a frame of that sender comes out of.
fn heard(tap: &Tap, from: u8) -> Option<usize> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        for (number, queue) in queues(tap).into_iter().enumerate() {
            let mut buffer = [0; 2048];
            while let Ok(length) = read(queue, &mut buffer) {
                if buffer[..length] == frame(from) {
                    return Some(number);
                }
            }
        }
        let ready = queues(tap).into_iter();
        let mut ready: Vec<_> = ready
            .map(|queue| PollFd::new(queue.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut ready, PollTimeout::from(100_u16)).expect("polled");
    }
    None
}

#[test]
fn frames_pass_by_each_queue_of_a_tap() {
    in_namespace(async |lab| {
        let mut config = lab.hosted();
        config.networks.push(NetworkSpec::isolated("inner"));
        let network = start(config).await;
        let attach = async |key, queues| network.attach_tap("inner", key, None, queues).await;
        let (several, other) = (attach("a/0", 4).await, attach("b/0", 1).await);
        let (several, other) = (several.expect("a tap"), other.expect("a tap"));
        assert_eq!((several.further.len(), other.further.len()), (3, 0));
        for (number, queue) in (0..).zip(queues(&several)) {
            write(queue, &frame(number)).expect("written");
            assert_eq!(heard(&other, number), Some(0), "queue {number}");
            // The answer comes by the queue by which its flow left.
            write(&other.fd, &frame(0x80)).expect("written");
            assert_eq!(heard(&several, 0x80), Some(usize::from(number)));
        }
        let limits = TapLimits {
            receive: Some(1_000_000_000),
            transmit: None,
        };
        network.limit_tap("a/0", limits).await.expect("limited");
        write(&other.fd, &frame(0x81)).expect("written");
        assert!(heard(&several, 0x81).is_some());

        // It is there until the last of its queues is closed.
        let Tap {
            fd, mut further, ..
        } = several;
        drop(fd);
        let last = further.pop();
        drop(further);
        let again = attach("a/0", 1).await.expect_err("held");
        assert!(matches!(again, NetError::NameTaken { .. }), "{again:?}");
        drop(last);
        let again = attach("a/0", 1).await.expect("a tap");
        assert!(again.further.is_empty());
    });
}
