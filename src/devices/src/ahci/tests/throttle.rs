//! A disk that is held to limits.

use super::*;
use crate::ahci::port::bits::at;
use crate::throttle::{DiskLimits, Rate};

/// Issues reads in all slots.
fn issue_all(rig: &Rig) {
    for slot in 0..32 {
        let piece = (DATA + u64::from(slot) * 512, 512);
        rig.prepare(
            0,
            slot,
            &queued_frame(0x60, slot, slot.into(), 1),
            0,
            &[piece],
        );
    }
    rig.set_port(0, at::SACT, u32::MAX);
    rig.issue(0, u32::MAX);
}

#[test]
fn a_disk_goes_as_fast_as_it_may_and_pauses_at_once() {
    let (rig, handle, _file) = disk_rig(1 << 20);
    let operations = |per_second| DiskLimits {
        operations: Some(Rate {
            per_second,
            burst: 1,
        }),
        bytes: None,
    };
    handle.throttle().set(operations(1000));
    let began = Instant::now();
    issue_all(&rig);
    rig.until("the commands", || rig.port(0, at::SACT) == 0);
    assert!(began.elapsed() >= Duration::from_millis(26));
    assert!(handle.statistics().totals().throttled_us > 0);

    handle.throttle().set(operations(1));
    issue_all(&rig);
    rig.until("a command", || rig.port(0, at::SACT) != u32::MAX);
    let began = Instant::now();
    {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        assert!(began.elapsed() < Duration::from_secs(10));
        function.resume();
    }
    assert_ne!(rig.port(0, at::SACT), 0);
    // A thread in the middle of its sleep hears of it.
    handle.throttle().set(DiskLimits::default());
    rig.until("the commands", || rig.port(0, at::SACT) == 0);
    assert_eq!(handle.statistics().totals().reads, 64);
}
