//! Anything in any order: no panic, and nothing but memory is discarded.

use proptest::prelude::*;
use vm_memory::{GuestMemory as _, Permissions};

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Offer {
        queue: usize,
        /// Address, length, whether device-writable.
        pieces: Vec<(u64, u32, bool)>,
    },
    Numbers(Vec<u32>),
    Kick(usize),
    Publish(usize, u16),
    Target(u64),
    Config(u64, Vec<u8>),
    Ask,
    Cycle,
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let address = prop_oneof![
        4 => DATA..LOW_END,
        1 => HIGH.start - 8192..HIGH.end + 8192,
        1 => any::<u64>(),
    ];
    let length = prop_oneof![4 => 0..8192_u32, 2 => 0..4_u32 << 20, 1 => any::<u32>()];
    let pieces = prop::collection::vec((address, length, any::<bool>()), 1..4);
    let number = prop_oneof![0x100..0xb000_u32, any::<u32>()];
    prop_oneof![
        6 => (0..QUEUES, pieces).prop_map(|(queue, pieces)| Act::Offer { queue, pieces }),
        2 => prop::collection::vec(number, 1..300).prop_map(Act::Numbers),
        6 => (0..QUEUES).prop_map(Act::Kick),
        1 => (0..QUEUES, any::<u16>()).prop_map(|(queue, index)| Act::Publish(queue, index)),
        2 => any::<u64>().prop_map(Act::Target),
        2 => (0..12_u64, prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(offset, data)| Act::Config(offset, data)),
        2 => Just(Act::Ask),
        1 => Just(Act::Cycle),
        1 => Just(Act::Reset),
    ]
}

fn play(rig: &mut Rig, act: Act) {
    match act {
        Act::Offer { queue, pieces } => {
            let pieces = pieces
                .iter()
                .map(|&(address, length, writes)| match writes {
                    true => writable(address, length),
                    false => readable(address, length),
                });
            rig.queues[queue].offer(&pieces.collect::<Vec<_>>());
        }
        Act::Numbers(numbers) => {
            let length = rig.write_numbers(DATA, &numbers);
            rig.queues[INFLATE].offer(&[readable(DATA, length)]);
        }
        Act::Kick(queue) => rig.queues[queue].kick(),
        Act::Publish(queue, index) => rig.queues[queue].publish(index),
        Act::Target(bytes) => rig.handle.set_target(bytes),
        Act::Config(offset, data) => {
            rig.device.write_config(offset, &data);
            let mut data = data;
            rig.device.read_config(offset, &mut data);
        }
        Act::Ask => rig.handle.ask_statistics(),
        Act::Cycle => {
            let state = rig.device.save();
            rig.cycle();
            assert_eq!(state.kind, rig.device.save().kind);
        }
        Act::Reset => {
            rig.device.deactivate();
            rig.device.reset();
            rig.memory
                .write_slice(&[0; 0x4_0000], GuestAddress(0))
                .unwrap();
            rig.queues = driver(&rig.memory);
            rig.events = Arc::default();
            rig.start(ALL);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn survives_any_order(acts in prop::collection::vec(act(), 0..60)) {
        let mut rig = Rig::started();
        for act in acts {
            play(&mut rig, act);
        }
        prop_assert_eq!(rig.device.deactivate().len(), QUEUES);
        for range in rig.take_discarded() {
            prop_assert!(range.start < range.end && range.start % PAGE == 0 && range.end % PAGE == 0);
            let length = (range.end - range.start) as usize;
            let base = GuestAddress(range.start);
            prop_assert!(rig.memory.check_range(base, length, Permissions::ReadWrite), "{range:x?}");
        }
    }
}
