//! Event queues that break the rules. The other two are the kernel's.

use proptest::prelude::*;

use super::*;
use crate::virtio::test_driver::Piece;

/// The device asks for a reset, gives its queues back, and serves a new driver.
fn breaks(mut rig: Rig, expected: &str) {
    rig.queues[EVENT].kick();
    let why = rig.events.wait_broken();
    assert!(why.contains(expected), "{why}");
    assert_eq!(rig.device.deactivate().len(), QUEUES);
    rig.device.reset();
    rig.memory
        .write_slice(&[0; DATA as usize], GuestAddress(0))
        .unwrap();
    rig.queues = driver(&rig.memory);
    rig.events = Arc::default();
    rig.restore();
    rig.start();
    rig.queues[EVENT].offer(&[writable(DATA, 4)]);
    rig.queues[EVENT].kick();
    assert_eq!(rig.queues[EVENT].wait_used().1, 4);
    assert!(!rig.events.broken());
}

fn restored() -> Rig {
    let mut rig = Rig::new();
    rig.restore();
    rig.start();
    rig
}

#[test]
fn broken_rings_need_a_reset() {
    let rig = restored();
    rig.queues[EVENT].publish(65);
    breaks(rig, "ring");
    let mut rig = restored();
    rig.queues[EVENT].make_available(64);
    breaks(rig, "descriptor index 64");
    let mut rig = restored();
    rig.queues[EVENT].offer(&[readable(DATA, 4)]);
    breaks(rig, "4 bytes needed, 0 given");
    let mut rig = restored();
    rig.queues[EVENT].offer(&[writable(DATA, 3)]);
    breaks(rig, "4 bytes needed, 3 given");
    let mut rig = restored();
    rig.queues[EVENT].offer(&[writable(MEMORY as u64 - 2, 4)]);
    breaks(rig, "outside guest memory");
}

#[derive(Debug, Clone)]
enum Act {
    Offer(usize, Vec<Piece>),
    Available(usize, u16),
    Publish(usize, u16),
    Kick(usize),
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
    prop_oneof![
        6 => (0..QUEUES, pieces).prop_map(|(queue, pieces)| Act::Offer(queue, pieces)),
        6 => (0..QUEUES).prop_map(Act::Kick),
        1 => (0..QUEUES, any::<u16>()).prop_map(|(queue, head)| Act::Available(queue, head)),
        1 => (0..QUEUES, any::<u16>()).prop_map(|(queue, index)| Act::Publish(queue, index)),
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
        Act::Pause { restore } => {
            let queues = rig.device.deactivate();
            assert_eq!(queues.len(), QUEUES);
            if restore {
                rig.restore();
            }
            rig.resume(queues);
        }
        Act::Reset => {
            rig.device.deactivate();
            rig.device.reset();
            rig.queues = driver(&rig.memory);
            rig.events = Arc::default();
            rig.start();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Neither does the loop die nor do queues stay away.
    #[test]
    fn anything_in_any_order(acts in prop::collection::vec(act(), 1..60)) {
        let mut rig = restored();
        for act in acts {
            play(&mut rig, act);
        }
        rig.settle();
        prop_assert_eq!(rig.device.deactivate().len(), QUEUES);
    }
}
