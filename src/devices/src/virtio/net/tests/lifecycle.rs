//! Activation, pause, reset, rings that break the rules.

use super::*;

#[test]
fn a_pause_loses_nothing() {
    let mut rig = Rig::new();
    for seed in 0..100 {
        rig.send(&frame(100, seed));
        let mut queues = rig.device.deactivate();
        let transmit = rig.transmit.activation(queues.pop().unwrap());
        let queues = [rig.receive.activation(queues.pop().unwrap()), transmit];
        // What the pause left in the ring is sent without another kick.
        let _ = rig.transmit.kick.read();
        rig.activate(!0, queues);
        rig.transmit.wait_used();
        assert_eq!(rig.wire.receive(), frame(100, seed));
    }
    assert_eq!(rig.totals().sent, 100);
}

fn link_of(rig: &Rig) -> u8 {
    let mut status = [0; 2];
    rig.device.read_config(6, &mut status);
    status[0]
}

#[test]
fn the_driver_hears_of_its_link() {
    let mut rig = Rig::new();
    let handle = rig.device.handle();
    assert_eq!((link_of(&rig), rig.events.take_changed()), (1, false));
    handle.set_link(false);
    assert_eq!((link_of(&rig), rig.events.take_changed()), (0, true));
    handle.set_link(false);
    assert!(!rig.events.take_changed(), "nothing new");
    // While it is paused nobody can be told; it hears of it afterwards.
    let mut queues = rig.device.deactivate();
    handle.set_link(true);
    assert!(!rig.events.take_changed());
    let transmit = rig.transmit.activation(queues.pop().unwrap());
    let queues = [rig.receive.activation(queues.pop().unwrap()), transmit];
    rig.activate(!0, queues);
    assert_eq!((link_of(&rig), rig.events.take_changed()), (1, true));
}

#[test]
fn a_restored_driver_hears_of_a_link_that_is_another() {
    for (then, now) in [(true, false), (false, true), (true, true), (false, false)] {
        let mut rig = Rig::new();
        rig.device.handle().set_link(then);
        let queues = rig.device.deactivate();
        let saved = rig.device.save();
        rig.device.handle().set_link(now);
        rig.events.take_changed();
        // As a device that was just built.
        let mut other = Rig::new();
        other.device.deactivate();
        other.device.handle().set_link(now);
        other.events.take_changed();
        other.device.restore(&saved).unwrap();
        let [receive, transmit]: [Queue; 2] = queues.try_into().unwrap();
        let queues = [
            other.receive.activation(receive),
            other.transmit.activation(transmit),
        ];
        other.activate(!0, queues);
        let told = other.events.take_changed();
        assert!(told || then == now, "{then} {now}");
        assert_eq!(link_of(&other), u8::from(now));
    }
}

/// The device asks for a reset, gives its queues back, and serves a new driver.
fn breaks(mut rig: Rig, expected: &str) {
    rig.receive.kick();
    rig.transmit.kick();
    // Something for it to receive.
    rig.wire.send(&frame(100, 1));
    let why = rig.events.wait_broken();
    assert!(why.contains(expected), "{why}");
    assert_eq!(rig.device.deactivate().len(), 2);
    rig.memory
        .write_slice(&[0; 0x1_0000], GuestAddress(0))
        .unwrap();
    rig.receive = DriverQueue::new(&rig.memory, 0, 64);
    rig.transmit = DriverQueue::new(&rig.memory, 0x8000, 64);
    rig.events = Arc::default();
    let queues = [rig.receive.device_side(), rig.transmit.device_side()];
    rig.activate(!0, queues);
    rig.send(&frame(50, 9));
    rig.transmit.wait_used();
    assert_eq!(rig.wire.receive(), frame(50, 9));
    assert!(!rig.events.broken());
}

#[test]
fn broken_rings_need_a_reset() {
    let rig = Rig::new();
    rig.transmit.publish(65);
    breaks(rig, "ring");
    let rig = Rig::new();
    rig.receive.publish(65);
    breaks(rig, "ring");
    let mut rig = Rig::new();
    rig.receive.offer(&[readable(BUFFERS, 2048)]).unwrap();
    breaks(rig, "1 bytes needed, 0 given");
    let mut rig = Rig::new();
    let outside = writable(MEMORY as u64 - 4, 2048);
    rig.receive.offer(&[outside]).unwrap();
    breaks(rig, "outside guest memory");
    let mut rig = Rig::new();
    rig.transmit.make_available(64);
    breaks(rig, "descriptor index 64");
}

/// CPU time the thread has used, in nanoseconds.
fn cpu_time(thread: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    status.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn sleeps_while_nobody_takes_packets() {
    // Packets that find no buffers must not keep the thread busy.
    let (tap, wire) = wire();
    let (send, thread) = std::sync::mpsc::channel();
    let prologue: Prologue = Arc::new(move || send.send(nix::unistd::gettid().as_raw()).unwrap());
    let mut rig = Rig::on(tap, None, wire, !0, &prologue);
    let thread = thread.recv().unwrap();
    for seed in 0..10 {
        rig.wire.send(&frame(100, seed));
    }
    rig.send(&frame(1, 1));
    rig.transmit.wait_used();
    let (start, used) = (std::time::Instant::now(), cpu_time(thread));
    while start.elapsed().as_millis() < 200 {
        rig.wire.send(&frame(1400, 0));
    }
    let used = std::time::Duration::from_nanos(cpu_time(thread) - used);
    assert!(used < start.elapsed() / 10, "{used:?}");
    assert_eq!(rig.totals().received, 0);
}

#[test]
fn half_a_pair_is_left_alone() {
    let mut rig = Rig::new();
    rig.device.deactivate();
    let mut queues = [rig.receive.device_side(), rig.transmit.device_side()];
    queues[0].queue.set_ready(false);
    rig.activate(!0, queues);
    let queues = rig.device.deactivate();
    let ready: Vec<bool> = queues.iter().map(Queue::ready).collect();
    assert_eq!(ready, [false, true]);
}

#[test]
fn takes_nothing_but_a_tap_with_headers() {
    let options = Options {
        mac: MAC,
        mtu: 1500,
    };
    let refusing = |tap| {
        let pairs = vec![QueuePair { tap, vhost: None }];
        Net::new(pairs, None, options, &no_prologue())
    };
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(refusing(null.into()).is_err());
    let refused = refusing(crate::test_wire::tap(0x2 | 0x1000));
    assert!(refused.is_err_and(|error| error.to_string().contains("VNET_HDR")));
}

#[test]
fn shows_its_configuration_and_keeps_it() {
    let mut rig = Rig::new();
    let mut space = [0xee; 12];
    rig.device.read_config(0, &mut space);
    assert_eq!(space[..6], MAC);
    assert_eq!(space[6..], [1, 0, 1, 0, 0xdc, 0x05]);
    for offset in [12, 4096, u64::MAX] {
        let mut data = [0; 8];
        rig.device.read_config(offset, &mut data);
        assert_eq!(data, [0; 8]);
    }
    let state = rig.device.save();
    rig.device.restore(&state).unwrap();
    let mut other = state.clone();
    other.body["mac"] = serde_json::json!([2, 0, 0, 0, 0, 1]);
    assert!(rig.device.restore(&other).is_err());
    let mut damaged = state;
    damaged.body["mac"] = serde_json::json!("x");
    assert!(rig.device.restore(&damaged).is_err());
}
