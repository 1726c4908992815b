//! Disks that are held to limits.

use std::time::{Duration, Instant};

use super::*;
use crate::throttle::{DiskLimits, Rate};

fn operations(per_second: u64) -> DiskLimits {
    DiskLimits {
        operations: Some(Rate {
            per_second,
            burst: 1,
        }),
        bytes: None,
    }
}

/// So many reads of a block, one of which is kicked for.
fn offer(rig: &mut Rig, count: u64) {
    for slot in 0..count {
        rig.offer(slot, IN, slot, &[writable(DATA + slot * 512, 512)]);
    }
    rig.queue.kick();
}

#[test]
fn a_disk_does_so_many_operations_in_a_second() {
    let mut rig = Rig::new(1 << 20);
    rig.device.handle().throttle().set(operations(500));
    let began = Instant::now();
    offer(&mut rig, 20);
    for _ in 0..20 {
        rig.queue.wait_used();
    }
    // Three of them at once: what comes in the shortest time a bucket holds, and one on credit.
    assert!(began.elapsed() >= Duration::from_millis(2 * 17));
    assert!(rig.totals().throttled_us >= 25_000, "{:?}", rig.totals());
}

#[test]
fn a_disk_moves_so_many_bytes_in_a_second() {
    let mut rig = Rig::new(1 << 20);
    rig.device.handle().throttle().set(DiskLimits {
        operations: None,
        bytes: Some(Rate {
            per_second: 1 << 20,
            burst: 1,
        }),
    });
    let began = Instant::now();
    for kind in [OUT, IN, OUT, IN] {
        let data = match kind {
            IN => writable(DATA, 32 << 10),
            _ => readable(DATA, 32 << 10),
        };
        assert_eq!(rig.request(kind, 0, &[data]).0, OK);
    }
    // The last one's debt is paid by those that come after it, and what comes in four milliseconds is always had.
    assert!(began.elapsed() >= Duration::from_millis(3 * 31 - 4));
    assert_eq!(rig.request(FLUSH, 0, &[]).0, OK);
    assert!(
        began.elapsed() >= Duration::from_millis(4 * 31 - 4),
        "a flush waits as well"
    );
    assert_eq!(rig.request(FLUSH, 0, &[]).0, OK);
    assert_eq!(rig.request(GET_ID, 0, &[writable(DATA, 20)]).0, OK);
}

#[test]
fn a_queue_that_waits_stops_at_once_and_loses_nothing() {
    let mut rig = Rig::new(1 << 20);
    let handle = rig.device.handle();
    handle.throttle().set(operations(1));
    offer(&mut rig, 10);
    for _ in 0..2 {
        rig.queue.wait_used();
    }
    let began = Instant::now();
    let mut queues = rig.device.deactivate();
    // The rest would take 8 seconds.
    assert!(began.elapsed() < Duration::from_secs(4));
    let queue = queues.pop().unwrap();
    let taken = queue.next_avail();
    assert_eq!(taken, queue.next_used());
    assert!(taken < 10, "{taken} were taken");
    // Limits are no part of what is saved, and stay.
    let queue = rig.queue.activation(queue);
    rig.activate(queue);
    assert_eq!(handle.throttle().limits(), operations(1));
    handle.throttle().set(DiskLimits::default());
    for _ in 2..10 {
        rig.queue.wait_used();
    }
    assert_eq!(rig.totals().reads, 10);
}

#[test]
fn other_limits_hold_at_once() {
    let mut rig = Rig::new(1 << 20);
    let handle = rig.device.handle();
    handle.throttle().set(operations(1));
    offer(&mut rig, 20);
    let began = Instant::now();
    rig.queue.wait_used();
    // A thread in the middle of its sleep hears of it, and nobody kicks.
    handle.throttle().set(operations(1000));
    for _ in 1..20 {
        rig.queue.wait_used();
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn queues_of_a_disk_share_its_limits() {
    let two = Options {
        queues: 2,
        ..options()
    };
    let mut rig = Rig::idle(1 << 20, two, 16);
    let mut other = DriverQueue::new(&rig.memory, RINGS + 0x1000, 16);
    let queues = vec![rig.queue.device_side(), other.device_side()];
    rig.device.handle().throttle().set(operations(100));
    let features = rig.device.features() | EVENT_IDX;
    let began = Instant::now();
    rig.activate_with(features, queues);
    for slot in 0..5 {
        rig.offer(slot, IN, 0, &[writable(DATA, 512)]);
        let pieces = rig.chain(slot + 10, IN, 0, &[writable(DATA, 512)]);
        other.offer(&pieces).unwrap();
    }
    rig.queue.kick();
    other.kick();
    for _ in 0..5 {
        rig.queue.wait_used();
        other.wait_used();
    }
    // Two of ten at once, one of them on credit.
    assert!(began.elapsed() >= Duration::from_millis(10 * 8));
}
