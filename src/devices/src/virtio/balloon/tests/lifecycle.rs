//! Wishes, configuration space, pause, reset, saved state.

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::virtio::queue_thread::Serve;

const MIB: u64 = 1 << 20;

#[test]
fn a_wish_is_told_to_the_driver() {
    let mut rig = Rig::started();
    assert!(!rig.events.take_changed(), "nothing was wished for");
    assert_eq!((rig.config(0), rig.config(4)), (0, 0));
    rig.handle.set_target(MIB);
    assert!(rig.events.take_changed());
    assert_eq!(rig.config(0), 256);
    rig.handle.set_target(MIB);
    assert!(!rig.events.take_changed(), "the same wish is no news");
    rig.device.write_config(4, &100_u32.to_le_bytes());
    assert_eq!(rig.config(4), 100);
    let condition = rig.handle.condition();
    assert_eq!((condition.target, condition.actual), (MIB, 100 * PAGE));
    rig.handle.set_target(u64::MAX);
    assert_eq!(rig.config(0), u32::MAX);
}

#[test]
fn a_wish_without_a_driver_waits_for_one() {
    let mut rig = Rig::new();
    rig.handle.set_target(MIB);
    assert!(!rig.events.take_changed());
    rig.start(ALL);
    assert!(rig.events.take_changed());
    rig.device.deactivate();
    rig.handle.set_target(2 * MIB);
    assert!(!rig.events.take_changed());
    rig.queues = driver(&rig.memory);
    rig.start(ALL);
    assert!(rig.events.take_changed());
}

#[test]
fn configuration_space_has_two_fields() {
    let mut rig = Rig::new();
    rig.handle.set_target(MIB);
    rig.device.write_config(4, &7_u32.to_le_bytes());
    // None of these is a write of `actual`.
    rig.device.write_config(0, &[0xff; 4]);
    rig.device.write_config(0, &[0xff; 8]);
    rig.device.write_config(5, &[0xff; 4]);
    rig.device.write_config(4, &[0xff]);
    rig.device.write_config(4, &[]);
    rig.device.write_config(u64::MAX, &[0xff; 4]);
    let mut all = [0; 16];
    rig.device.read_config(0, &mut all);
    assert_eq!(all, [0, 1, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut end = [0; 4];
    rig.device.read_config(6, &mut end);
    rig.device.read_config(8, &mut end);
    rig.device.read_config(u64::MAX, &mut end);
    assert_eq!(end, [0; 4]);
}

#[test]
fn a_pause_loses_nothing() {
    let mut rig = Rig::started();
    for number in 1000..1100_u32 {
        let length = rig.write_numbers(DATA, &[number]);
        rig.queues[INFLATE].offer(&[readable(DATA, length)]);
        rig.queues[INFLATE].kick();
        rig.cycle();
        rig.queues[INFLATE].wait_used();
        assert!(rig.take_discarded().contains(&page(number.into())));
    }
}

#[test]
fn it_stops_in_the_middle_of_a_large_request() {
    let stop = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let discarded: Arc<Mutex<Vec<Range<u64>>>> = Arc::default();
    let (noted, stopping) = (Arc::clone(&discarded), Arc::clone(&stop));
    let mut server = Server {
        handle: Handle::new().unwrap(),
        discard: Arc::new(move |_, range| {
            noted.lock().unwrap().push(range);
            stopping.write(1)
        }),
    };
    let mut rig = Rig::new();
    rig.queues[3].offer(&[writable(DATA, (LOW_END - DATA) as u32)]);
    let mut queues: Vec<_> = rig.queues.iter().map(DriverQueue::device_side).collect();
    for attempt in 1..=2 {
        let start = Start {
            memory: rig.memory.clone(),
            features: ALL,
            queues,
            events: Arc::clone(&rig.events) as _,
        };
        let given_back = server.serve(start, &stop);
        stop.read().unwrap();
        // Each time it begins with the request again, and gets to one piece of it.
        let seen = std::mem::take(&mut *discarded.lock().unwrap());
        assert_eq!(seen.len(), 1, "{attempt}: {seen:?}");
        assert_eq!(seen[0].start, DATA);
        assert_eq!(rig.queues[3].take_used(), None);
        let given_back = rig.queues.iter().zip(given_back);
        queues = given_back
            .map(|(driver, queue)| driver.activation(queue))
            .collect();
    }
    // Where nobody stops it, the request is done.
    rig.activate(ALL, queues);
    rig.queues[3].wait_used();
    assert!(rig.take_discarded().len() > 1);
}

#[test]
fn the_next_driver_finds_the_wish_only() {
    let mut rig = Rig::started();
    rig.handle.set_target(MIB);
    rig.device.write_config(4, &7_u32.to_le_bytes());
    rig.queues[STATISTICS].offer(&[readable(DATA, 10)]);
    rig.queues[STATISTICS].kick();
    rig.settle();
    assert!(rig.handle.condition().statistics.is_some());
    rig.device.deactivate();
    rig.device.reset();
    let expected = Condition {
        target: MIB,
        ..Condition::default()
    };
    assert_eq!(rig.handle.condition(), expected);
}

#[test]
fn saved_state_comes_back() {
    let mut rig = Rig::started();
    rig.handle.set_target(MIB);
    rig.device.write_config(4, &7_u32.to_le_bytes());
    rig.device.deactivate();
    // A wish while it is paused is news to the driver wherever it goes on.
    rig.handle.set_target(2 * MIB);
    let state = rig.device.save();
    assert_eq!((state.kind.as_str(), state.version), ("virtio-balloon", 1));
    let mut other = Rig::new();
    other.device.restore(&state).unwrap();
    let condition = other.handle.condition();
    assert_eq!((condition.target, condition.actual), (2 * MIB, 7 * PAGE));
    other.start(ALL);
    assert!(other.events.take_changed());
    for bad in [
        serde_json::json!({}),
        serde_json::json!({"target": -1, "told": 0, "actual": 0}),
        serde_json::json!({"target": 0, "told": 0, "actual": 1_u64 << 32}),
    ] {
        let state = DeviceState {
            body: bad,
            ..state.clone()
        };
        other.device.deactivate();
        assert!(other.device.restore(&state).is_err());
        assert_eq!(other.handle.condition(), condition);
    }
}

#[test]
fn the_number_of_queues_is_fixed() {
    let mut rig = Rig::new();
    let activation = Activation {
        memory: rig.memory.clone(),
        features: ALL,
        queues: vec![rig.queues[0].device_side()],
        events: Arc::clone(&rig.events) as _,
    };
    assert!(rig.device.activate(activation).is_err());
    assert!(rig.device.deactivate().is_empty());
}
