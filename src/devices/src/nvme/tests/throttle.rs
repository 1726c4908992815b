//! A disk that is held to limits.

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

#[test]
fn a_disk_goes_as_fast_as_it_may() {
    let (rig, _file) = ready();
    rig.handle.throttle().set(operations(500));
    let began = Instant::now();
    for block in 0..10 {
        rig.fill(1, transfer(2, block, 1, [DATA, 0]));
        rig.fill(2, transfer(2, block, 1, [DATA, 0]));
    }
    rig.ring(1);
    rig.ring(2);
    for _ in 0..10 {
        assert_eq!(rig.reap(1).status, OK);
        assert_eq!(rig.reap(2).status, OK);
    }
    assert!(began.elapsed() >= Duration::from_millis(2 * 16));
    assert!(rig.handle.statistics().totals().throttled_us > 0);
}

#[test]
fn a_queue_that_waits_is_paused_at_once_and_loses_nothing() {
    let (rig, _file) = ready();
    rig.handle.throttle().set(operations(1));
    for block in 0..20 {
        rig.fill(1, transfer(2, block, 1, [DATA, 0]));
    }
    rig.ring(1);
    assert_eq!(rig.reap(1).status, OK);
    {
        let mut function = rig.function.lock().unwrap();
        let began = Instant::now();
        function.pause();
        assert!(began.elapsed() < Duration::from_secs(5));
        function.resume();
    }
    // A thread in the middle of its sleep hears of it, and nobody rings.
    rig.handle.throttle().set(DiskLimits::default());
    for _ in 1..20 {
        assert_eq!(rig.reap(1).status, OK);
    }
    assert_eq!(rig.handle.statistics().totals().reads, 20);
}
