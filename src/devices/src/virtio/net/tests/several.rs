//! Several pairs of queues, of which the driver uses some.

use serde_json::json;

use super::driver::{ACK, COMMAND, Several};
use super::*;
use crate::event_loop::EventLoop;
use crate::test_wire::wire_of_queues;

/// One pair until the driver asks for more, and again when it asks for fewer.
fn follows_the_driver(mut driver: Several) {
    for pair in 0..4 {
        driver.post(pair);
    }
    driver.all_pass(1);
    // Nobody looks at the second pair yet.
    driver.offer_frame(1, &frame(60, 7));
    driver.all_pass(1);
    assert_eq!(driver.queues[3].take_used(), None);
    assert_eq!(driver.use_pairs(4), 0);
    assert_eq!(driver.wire.receive(), frame(60, 7));
    driver.queues[3].wait_used();
    driver.all_pass(4);
    assert_eq!(driver.use_pairs(2), 0);
    driver.all_pass(2);
    // What came for the others while they were there is lost; now all of it comes to these.
    for refused in [0, 5, 0xffff] {
        assert_eq!(driver.use_pairs(refused), 1);
    }
    driver.all_pass(2);
    assert_eq!(driver.use_pairs(1), 0);
    driver.all_pass(1);
    assert_eq!(driver.use_pairs(3), 0);
    driver.all_pass(3);
    assert!(!driver.events.broken());
}

#[test]
fn threads_serve_as_many_pairs_as_the_driver_uses() {
    follows_the_driver(Several::new(4, !0));
}

#[test]
fn the_kernel_serves_as_many_pairs_as_the_driver_uses() {
    if let Some(driver) = Several::in_kernel(4, !0) {
        follows_the_driver(driver);
    }
}

/// A pause, and another device that goes on, keep the pairs in use; a reset does not.
fn keeps_its_pairs(mut driver: Several, mut other: Several) {
    driver.post(0);
    driver.post(1);
    assert_eq!(driver.use_pairs(2), 0);
    for _ in 0..20 {
        driver.all_pass(2);
        let queues = driver.device.deactivate();
        assert_eq!(queues.len(), 5);
        driver.go_on(queues);
    }
    let queues = driver.device.deactivate();
    let saved = driver.device.save();
    assert_eq!(
        (saved.version, &saved.body["told"]["enabled_pairs"]),
        (2, &2.into())
    );
    other.device.deactivate();
    other.device.reset();
    other.device.restore(&saved).unwrap();
    // Its driver is the same, and so is its memory.
    other.memory = driver.memory.clone();
    std::mem::swap(&mut other.queues, &mut driver.queues);
    other.go_on(queues);
    other.all_pass(2);
    let queues = other.device.deactivate();
    other.device.reset();
    assert_eq!(other.device.save().body["told"]["enabled_pairs"], 1);
    other.go_on(queues);
    other.all_pass(1);
}

#[test]
fn pairs_in_use_outlast_a_pause_and_a_restoration() {
    // Each is on a thread of its own, for each has a namespace of its own.
    let other = std::thread::spawn(|| Several::new(2, !0));
    keeps_its_pairs(Several::new(2, !0), other.join().unwrap());
}

#[test]
fn pairs_in_use_outlast_a_pause_and_a_restoration_in_the_kernel() {
    let other = std::thread::spawn(|| Several::in_kernel(2, !0));
    let (driver, other) = (Several::in_kernel(2, !0), other.join().unwrap());
    if let (Some(driver), Some(other)) = (driver, other) {
        keeps_its_pairs(driver, other);
    }
}

#[test]
fn a_driver_of_one_pair_finds_the_control_queue_behind_it() {
    let mut driver = Several::new(3, !(1 << abi::VIRTIO_NET_F_MQ));
    driver.post(0);
    driver.all_pass(1);
    // It is there, and refuses what was not agreed on.
    assert_eq!(driver.use_pairs(2), 1);
    driver.all_pass(1);
    let queues = driver.device.deactivate();
    assert_eq!(queues.len(), 7);
    driver.go_on(queues);
    driver.all_pass(1);
    assert_eq!(driver.use_pairs(1), 1);
}

#[test]
fn a_driver_without_a_control_queue_has_one_pair() {
    let mut driver = Several::new(2, !(1 << abi::VIRTIO_NET_F_CTRL_VQ));
    driver.post(0);
    driver.all_pass(1);
    driver.queues[4].offer(&[readable(COMMAND, 4), writable(ACK, 1)]);
    driver.queues[4].kick();
    driver.all_pass(1);
    assert_eq!(driver.queues[4].take_used(), None);
    let queues = driver.device.deactivate();
    assert_eq!(queues.len(), 5);
    driver.go_on(queues);
    driver.all_pass(1);
}

#[test]
fn a_pair_that_was_not_set_up_is_not_used() {
    let mut driver = Several::new(3, !0);
    let mut queues = driver.device.deactivate();
    queues[5].set_ready(false);
    driver.go_on(queues);
    driver.post(0);
    driver.post(1);
    assert_eq!(driver.use_pairs(3), 1);
    driver.all_pass(1);
    assert_eq!(driver.use_pairs(2), 0);
    driver.all_pass(2);
}

#[test]
fn shows_what_it_has() {
    let driver = Several::new(3, !0);
    let offered = |device: &Net, feature: u32| device.features() & (1 << feature) != 0;
    assert!(offered(&driver.device, abi::VIRTIO_NET_F_MQ));
    assert_eq!(
        driver.device.queue_sizes(),
        [256, 256, 256, 256, 256, 256, 64]
    );
    let mut most = [0; 2];
    driver.device.read_config(8, &mut most);
    assert_eq!(most, [3, 0]);
    let one = Several::new(1, !0);
    assert!(!offered(&one.device, abi::VIRTIO_NET_F_MQ));
    assert!(offered(&one.device, abi::VIRTIO_NET_F_CTRL_VQ));
    assert_eq!(one.device.queue_sizes(), [256, 256, 64]);
    // As guests know it that were saved before there were control queues.
    let plain = Rig::new();
    assert!(!offered(&plain.device, abi::VIRTIO_NET_F_CTRL_VQ));
    assert_eq!(plain.device.save().version, 1);
}

#[test]
fn takes_up_what_was_saved_before() {
    let mut driver = Several::new(2, !0);
    assert_eq!(driver.use_pairs(2), 0);
    driver.device.deactivate();
    let saved = driver.device.save();
    for (field, impossible) in [
        ("/enabled_pairs", json!(0)),
        ("/enabled_pairs", json!(3)),
        ("/rules/mac", json!([1, 0, 0, 0, 0, 0])),
        ("/rules/unicast/addresses", json!([[3, 0, 0, 0, 0, 0]])),
        ("/rules/multicast/addresses", json!([[2, 0, 0, 0, 0, 0]])),
        ("/rules/multicast/addresses", json!(vec![[3; 6]; 65])),
    ] {
        let mut changed = saved.clone();
        *changed.body["told"].pointer_mut(field).unwrap() = impossible;
        assert!(driver.device.restore(&changed).is_err(), "{field}");
    }
    let plain = Rig::new().device.save();
    driver.device.restore(&plain).unwrap();
    assert_eq!(driver.device.save().body["told"]["enabled_pairs"], 1);
}

#[test]
fn there_are_as_many_pairs_as_may_be() {
    let options = Options {
        mac: MAC,
        mtu: 1500,
    };
    let events = EventLoop::new().unwrap();
    for (count, control) in [(0, true), (9, true), (2, false)] {
        let pairs = wire_of_queues(count).0.into_iter().take(count);
        let pairs = pairs.map(|tap| QueuePair { tap, vhost: None }).collect();
        let events = events.handle();
        let refused = Net::new(pairs, control.then_some(&events), options, &no_prologue());
        assert!(refused.is_err(), "{count} {control}");
    }
}
