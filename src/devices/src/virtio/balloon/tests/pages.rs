//! Pages go in, come out and are reported.

use super::*;

#[test]
fn it_is_what_the_specification_says() {
    let rig = Rig::new();
    assert_eq!(rig.device.device_type(), 5);
    assert_eq!(rig.device.features(), 1 << 1 | 1 << 2 | 1 << 5);
    assert_eq!(rig.device.queue_sizes().len(), 5);
}

#[test]
fn inflated_pages_are_discarded_as_runs() {
    let mut rig = Rig::started();
    rig.give(INFLATE, &[1000, 1002, 1001, 1004, 1001]);
    assert_eq!(rig.take_discarded(), [1000 * PAGE..1003 * PAGE, page(1004)]);
    // In several pieces of memory, numbers cut by their borders.
    let length = rig.write_numbers(DATA, &[2000, 2001, 2002]);
    let pieces = [readable(DATA, 6), readable(DATA + 6, length - 6)];
    rig.queues[INFLATE].offer(&pieces);
    rig.queues[INFLATE].kick();
    rig.queues[INFLATE].wait_used();
    let all = 2000 * PAGE..2003 * PAGE;
    assert_eq!(rig.take_discarded(), [all]);
    assert!(!rig.events.broken());
}

#[test]
fn deflated_pages_cost_nothing() {
    let mut rig = Rig::started();
    rig.give(DEFLATE, &[1000, 1001, u32::MAX]);
    assert!(rig.take_discarded().is_empty());
}

#[test]
fn reported_pages_are_discarded_whichever_queue_they_come_by() {
    for number in REPORTING {
        let mut rig = Rig::started();
        let queue = &mut rig.queues[number];
        queue.offer(&[
            writable(2 << 20, 2 << 20),
            writable(4 << 20, 2 << 20),
            writable(HIGH.start, 4 << 20),
        ]);
        queue.kick();
        assert_eq!(queue.wait_used().1, 0);
        assert_eq!(
            rig.take_discarded(),
            [2 << 20..6 << 20, HIGH.start..HIGH.start + (4 << 20)]
        );
    }
}

#[test]
fn without_the_feature_nothing_is_reported() {
    let mut rig = Rig::new();
    rig.start(0);
    for number in REPORTING.into_iter().chain([STATISTICS]) {
        rig.queues[number].offer(&[writable(2 << 20, 2 << 20)]);
        rig.queues[number].kick();
    }
    rig.give(INFLATE, &[1000]);
    assert_eq!(rig.take_discarded(), [page(1000)]);
    for number in REPORTING.into_iter().chain([STATISTICS]) {
        assert_eq!(rig.queues[number].take_used(), None);
    }
    assert_eq!(rig.handle.condition().statistics, None);
}

#[test]
fn much_is_discarded_in_pieces() {
    let mut rig = Rig::started();
    let queue = &mut rig.queues[3];
    queue.offer(&[writable(1 << 20, 63 << 20)]);
    queue.kick();
    queue.wait_used();
    let pieces = rig.take_discarded();
    assert!(pieces.len() > 1, "{pieces:?}");
    let total: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
    assert_eq!(total, 63 << 20);
}

#[test]
fn many_requests_come_in_batches() {
    let mut rig = Rig::started();
    let length = rig.write_numbers(DATA, &[1000]);
    for _ in 0..64 {
        rig.queues[INFLATE]
            .offer(&[readable(DATA, length)])
            .unwrap();
    }
    rig.queues[INFLATE].kick();
    for _ in 0..64 {
        rig.queues[INFLATE].wait_used();
    }
    assert_eq!(rig.take_discarded().len(), 64);
}

#[test]
fn the_host_may_refuse() {
    let mut rig = Rig::discarding(
        Arc::default(),
        |_, _| Err(io::ErrorKind::OutOfMemory.into()),
    );
    rig.start(ALL);
    rig.give(INFLATE, &[1000]);
    assert_eq!(rig.events.failures().len(), 1);
    assert!(!rig.events.broken());
}
