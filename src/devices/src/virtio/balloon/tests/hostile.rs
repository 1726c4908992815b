//! Drivers that break the rules, or keep to them in ways nobody meant.

use super::*;
use crate::virtio::test_driver::Piece;

/// The device asks for a reset, gives its queues back, and serves the next driver.
fn breaks(mut rig: Rig, expected: &str) {
    let why = rig.events.wait_broken();
    assert!(why.contains(expected), "{why}");
    rig.handle.ask_statistics();
    assert_eq!(rig.device.deactivate().len(), QUEUES);
    rig.device.reset();
    rig.take_discarded();
    rig.memory
        .write_slice(&[0; 0x4_0000], GuestAddress(0))
        .unwrap();
    rig.queues = driver(&rig.memory);
    rig.events = Arc::default();
    rig.start(ALL);
    rig.give(INFLATE, &[1000]);
    assert_eq!(rig.take_discarded(), [page(1000)]);
    assert!(!rig.events.broken());
}

fn offers(queue: usize, pieces: &[Piece], expected: &str) {
    let mut rig = Rig::started();
    rig.queues[queue].offer(pieces).unwrap();
    rig.queues[queue].kick();
    breaks(rig, expected);
}

#[test]
fn broken_rings_need_a_reset() {
    for number in 0..QUEUES {
        let rig = Rig::started();
        rig.queues[number].publish(65);
        rig.queues[number].kick();
        breaks(rig, &format!("queue {number}: ring"));
    }
}

#[test]
fn chains_outside_memory_need_a_reset() {
    for number in [INFLATE, DEFLATE, STATISTICS] {
        offers(number, &[readable(LOW_END - 8, 16)], "outside guest memory");
        offers(
            number,
            &[readable(u64::MAX - 8, 16)],
            "outside guest memory",
        );
    }
    for number in REPORTING {
        offers(number, &[writable(LOW_END - 4096, 8192)], "outside");
        offers(number, &[writable(HIGH.end, 4096)], "outside");
    }
}

#[test]
fn huge_chains_need_a_reset() {
    for number in [INFLATE, DEFLATE, STATISTICS] {
        offers(number, &[readable(DATA, 1 << 20)], "bytes in one chain");
    }
    // Every buffer lies in memory; together they are more than 4 GiB.
    let all = vec![writable(0, LOW_END as u32); 64];
    for number in REPORTING {
        offers(number, &all, "bytes in one chain");
    }
}

#[test]
fn all_of_memory_over_and_over_is_discarded_once() {
    let mut rig = Rig::started();
    // The driver's own rings are spared, so that they can tell when it is done.
    let everything = writable(DATA, (LOW_END - DATA) as u32);
    let queue = &mut rig.queues[4];
    queue.offer(&[everything; 63]).unwrap();
    queue.kick();
    queue.wait_used();
    let pieces = rig.take_discarded();
    let total: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
    assert_eq!(total, LOW_END - DATA);
}

#[test]
fn pages_that_are_no_memory_are_left_alone() {
    let mut rig = Rig::started();
    let first_outside = (LOW_END / PAGE) as u32;
    let high_end = (HIGH.end / PAGE) as u32;
    rig.give(
        INFLATE,
        &[
            first_outside - 1,
            first_outside,
            u32::MAX,
            high_end - 1,
            high_end,
            0x000f_ffff,
        ],
    );
    assert_eq!(
        rig.take_discarded(),
        [
            page(u64::from(first_outside) - 1),
            page(u64::from(high_end) - 1)
        ]
    );
    assert!(!rig.events.broken());
}

#[test]
fn odd_lengths_are_cut_off() {
    let mut rig = Rig::started();
    rig.write_numbers(DATA, &[1000, 1001]);
    for length in [1, 3, 7] {
        let queue = &mut rig.queues[INFLATE];
        queue.offer(&[readable(DATA, length)]);
        queue.kick();
        queue.wait_used();
    }
    assert_eq!(rig.take_discarded(), [page(1000)]);
    // A free range is what lies wholly within.
    let queue = &mut rig.queues[3];
    queue.offer(&[writable(DATA + 1, 4096), writable(DATA + 0x1_0001, 8192)]);
    queue.kick();
    queue.wait_used();
    let whole = DATA + 0x1_1000..DATA + 0x1_2000;
    assert_eq!(rig.take_discarded(), [whole]);
}

#[test]
fn buffers_of_the_wrong_direction_are_returned() {
    let mut rig = Rig::started();
    for number in [INFLATE, DEFLATE] {
        rig.queues[number].offer(&[writable(DATA, 64)]);
        rig.queues[number].kick();
        assert_eq!(rig.queues[number].wait_used().1, 0);
    }
    rig.queues[3].offer(&[readable(DATA, 1 << 20)]);
    rig.queues[3].kick();
    rig.queues[3].wait_used();
    assert!(rig.take_discarded().is_empty());
}
