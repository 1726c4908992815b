//! What the guest says about its memory.

use super::*;

/// Records as a driver writes them.
fn records(list: &[(u16, u64)]) -> Vec<u8> {
    let record = |&(tag, value): &(u16, u64)| {
        let mut bytes = tag.to_le_bytes().to_vec();
        bytes.extend(value.to_le_bytes());
        bytes
    };
    list.iter().flat_map(record).collect()
}

fn offer(rig: &mut Rig, bytes: &[u8]) {
    rig.memory.write_slice(bytes, GuestAddress(DATA)).unwrap();
    rig.queues[STATISTICS].offer(&[readable(DATA, bytes.len() as u32)]);
    rig.queues[STATISTICS].kick();
    rig.settle();
}

impl Rig {
    fn statistics(&self) -> Statistics {
        self.handle.condition().statistics.unwrap()
    }
}

#[test]
fn statistics_are_held_until_new_ones_are_wanted() {
    let mut rig = Rig::started();
    assert_eq!(rig.handle.condition().statistics, None);
    offer(&mut rig, &records(&[(4, 100), (5, 200), (99, 1), (6, 150)]));
    let expected = Statistics {
        free: Some(100),
        total: Some(200),
        available: Some(150),
        ..Statistics::default()
    };
    assert_eq!(rig.statistics(), expected);
    assert_eq!(rig.queues[STATISTICS].take_used(), None);
    rig.handle.ask_statistics();
    rig.queues[STATISTICS].wait_used();
    let rest = [(0, 1), (1, 2), (2, 3), (3, 4), (7, 5), (4, 6), (4, 7)];
    offer(&mut rig, &records(&rest));
    let expected = Statistics {
        swap_in: Some(1),
        swap_out: Some(2),
        major_faults: Some(3),
        minor_faults: Some(4),
        caches: Some(5),
        free: Some(7),
        ..Statistics::default()
    };
    assert_eq!(rig.statistics(), expected);
    // Not more than once a second.
    rig.handle.ask_statistics();
    rig.settle();
    assert_eq!(rig.queues[STATISTICS].take_used(), None);
}

#[test]
fn a_question_waits_for_a_buffer() {
    let mut rig = Rig::started();
    rig.handle.ask_statistics();
    offer(&mut rig, &records(&[(4, 100)]));
    rig.queues[STATISTICS].wait_used();
    assert_eq!(rig.statistics().free, Some(100));
}

#[test]
fn odd_sizes_are_read_as_far_as_they_go() {
    let whole = records(&[(4, u64::MAX), (5, 200)]);
    for (length, free, total) in [
        (1, None, None),
        (9, None, None),
        (10, Some(u64::MAX), None),
        (19, Some(u64::MAX), None),
        (20, Some(u64::MAX), Some(200)),
    ] {
        let mut rig = Rig::started();
        offer(&mut rig, &whole[..length]);
        let statistics = rig.statistics();
        assert_eq!((statistics.free, statistics.total), (free, total));
    }
    // Far more than there are tags: the first ones count.
    let mut rig = Rig::started();
    let mut many = records(&[(4, 1); 64]);
    many.extend(records(&[(4, 2); 1000]));
    offer(&mut rig, &many);
    assert_eq!(rig.statistics().free, Some(1));
    assert!(!rig.events.broken());
}

#[test]
fn one_question_returns_one_buffer() {
    let mut rig = Rig::started();
    for free in 1..=3 {
        rig.memory
            .write_slice(&records(&[(4, free)]), GuestAddress(DATA + free * 64))
            .unwrap();
        rig.queues[STATISTICS].offer(&[readable(DATA + free * 64, 10)]);
    }
    rig.queues[STATISTICS].kick();
    rig.settle();
    assert_eq!(rig.statistics().free, Some(1));
    rig.handle.ask_statistics();
    rig.queues[STATISTICS].wait_used();
    // The next one is read, and held.
    rig.settle();
    assert_eq!(rig.statistics().free, Some(2));
    assert_eq!(rig.queues[STATISTICS].take_used(), None);
}

#[test]
fn a_held_buffer_is_held_again_after_a_pause() {
    let mut rig = Rig::started();
    offer(&mut rig, &records(&[(4, 100)]));
    for _ in 0..3 {
        rig.cycle();
        rig.settle();
        assert_eq!(rig.queues[STATISTICS].take_used(), None);
    }
    rig.handle.ask_statistics();
    rig.queues[STATISTICS].wait_used();
    offer(&mut rig, &records(&[(4, 200)]));
    assert_eq!(rig.statistics().free, Some(200));
}
