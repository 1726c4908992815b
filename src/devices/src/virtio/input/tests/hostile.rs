//! Queues that break the rules.

use proptest::prelude::*;

use super::*;
use crate::virtio::test_driver::Piece;

/// The device asks for a reset, gives its queues back, and serves a new driver.
fn breaks(mut rig: Rig, expected: &str) {
    rig.handle.report(at(1, 1));
    let why = rig.events.wait_broken();
    assert!(why.contains(expected), "{why}");
    // What is reported to a broken device harms nobody.
    for x in 0..200 {
        assert!(rig.handle.report(at(x, x)));
    }
    rig.another_driver();
    rig.offer(8);
    rig.start();
    rig.handle.report(at(1, 0));
    assert_eq!(rig.heard(), [(3, 0, 1), SYN]);
    assert!(!rig.events.broken());
}

fn offering(piece: Piece) -> Rig {
    let mut rig = Rig::new();
    rig.queues[EVENTS].offer(&[piece]);
    rig.start();
    rig
}

#[test]
fn broken_rings_need_a_reset() {
    let rig = Rig::started(0);
    rig.queues[EVENTS].publish(65);
    breaks(rig, "ring");
    let mut rig = Rig::started(0);
    rig.queues[EVENTS].make_available(64);
    breaks(rig, "descriptor index 64");
    breaks(offering(readable(DATA, 8)), "8 bytes needed, 0 given");
    breaks(offering(writable(DATA, 7)), "8 bytes needed, 7 given");
    breaks(
        offering(writable(MEMORY as u64 - 4, 8)),
        "outside guest memory",
    );
}

#[derive(Debug, Clone)]
enum Act {
    Offer(usize, Vec<Piece>),
    Available(usize, u16),
    Publish(usize, u16),
    Kick(usize),
    Report(u16, u16, u8, i32),
    Pause { restore: bool },
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let address = prop_oneof![4 => DATA..MEMORY as u64, 1 => 0..DATA, 1 => any::<u64>()];
    let length = prop_oneof![4 => 0..16_u32, 1 => any::<u32>()];
    let piece = (address, length, any::<bool>()).prop_map(|(address, length, writes)| Piece {
        address,
        length,
        writable: writes,
    });
    let pieces = prop::collection::vec(piece, 1..4);
    let report = any::<(u16, u16, u8, i32)>();
    prop_oneof![
        6 => (0..2_usize, pieces).prop_map(|(queue, pieces)| Act::Offer(queue, pieces)),
        3 => (0..2_usize).prop_map(Act::Kick),
        6 => report.prop_map(|(x, y, buttons, wheel)| Act::Report(x, y, buttons, wheel)),
        1 => (0..2_usize, any::<u16>()).prop_map(|(queue, head)| Act::Available(queue, head)),
        1 => (0..2_usize, any::<u16>()).prop_map(|(queue, index)| Act::Publish(queue, index)),
        3 => any::<bool>().prop_map(|restore| Act::Pause { restore }),
        1 => Just(Act::Reset),
    ]
}

fn play(rig: &mut Rig, act: Act) {
    match act {
        Act::Offer(queue, pieces) => {
            rig.queues[queue].offer(&pieces);
        }
        Act::Available(queue, head) => rig.queues[queue].make_available(head),
        Act::Publish(queue, index) => rig.queues[queue].publish(index),
        Act::Kick(queue) => rig.queues[queue].kick(),
        Act::Report(x, y, buttons, wheel) => {
            rig.handle.report(Report {
                x,
                y,
                wheel,
                buttons,
            });
        }
        Act::Pause { restore } => {
            let queues = rig.device.deactivate();
            assert_eq!(queues.len(), 2);
            if restore {
                let state = rig.device.save();
                rig.device.restore(&state).unwrap();
                assert_eq!(rig.device.save(), state);
            }
            rig.resume(queues);
        }
        Act::Reset => {
            rig.another_driver();
            rig.start();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Neither does anything panic nor do queues stay away.
    #[test]
    fn anything_in_any_order(acts in prop::collection::vec(act(), 1..60)) {
        let mut rig = Rig::started(8);
        for act in acts {
            play(&mut rig, act);
        }
        prop_assert_eq!(rig.device.deactivate().len(), 2);
    }
}
