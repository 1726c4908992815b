use proptest::prelude::*;

use super::*;
use crate::lifecycle::Device;

#[derive(Debug, Clone)]
enum Act {
    Status(u8),
    Features(u64),
    Queue(u16, u16, u16, u64),
    Bar {
        write: bool,
        offset: u64,
        data: [u8; 8],
        width: usize,
    },
    Config {
        write: bool,
        offset: usize,
        data: [u8; 4],
    },
    Cycle,
    Machine,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop_oneof![Just(0_u8), Just(1), Just(3), Just(11), Just(15), any::<u8>()].prop_map(Act::Status),
        2 => prop_oneof![Just(VERSION_1), Just(VERSION_1 | EVENT_IDX), any::<u64>()].prop_map(Act::Features),
        3 => (0..4_u16, prop_oneof![Just(16_u16), any::<u16>()], 0..5_u16, prop_oneof![Just(0x1000_u64), any::<u64>()])
            .prop_map(|(number, size, vector, base)| Act::Queue(number, size, vector, base)),
        6 => (any::<bool>(), prop_oneof![0..0x40_u64, 0..BAR_BYTES], any::<[u8; 8]>(), 1..9_usize)
            .prop_map(|(write, offset, data, width)| Act::Bar { write, offset, data, width }),
        2 => (any::<bool>(), 0..64_usize, any::<[u8; 4]>())
            .prop_map(|(write, offset, data)| Act::Config { write, offset: offset * 4, data }),
        1 => Just(Act::Cycle),
        1 => Just(Act::Machine),
    ]
}

proptest! {
    /// Registers in any order: no panic, the device is only active when it should be, and what it
    /// was given lies in guest memory.
    #[test]
    fn survives_any_order(acts in proptest::collection::vec(act(), 0..60)) {
        let rig = rig();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        for act in acts {
            match act {
                Act::Status(value) => {
                    let before = rig.function.lock().unwrap().status();
                    rig.put(0x14, &[value]);
                    let after = rig.function.lock().unwrap().status();
                    prop_assert!(after == 0 || before & !after == 0, "{before:#x} -> {after:#x}");
                }
                Act::Features(features) => rig.features(features),
                Act::Queue(number, size, vector, base) => {
                    rig.queue(number, size, vector, [base, base.wrapping_add(0x1000), base.wrapping_add(0x2000)]);
                }
                Act::Bar { write: true, offset, data, width } => rig.put(offset, &data[..width]),
                Act::Bar { offset, mut data, width, .. } => rig.bus.read(BASE + offset, &mut data[..width]),
                Act::Config { write: true, offset, data } => rig.config_write(offset, &data),
                Act::Config { offset, .. } => { rig.config_read::<4>(offset); }
                Act::Cycle => {
                    let mut function = rig.function.lock().unwrap();
                    function.pause();
                    let saved = function.save();
                    function.restore(&saved).unwrap();
                    function.resume();
                }
                Act::Machine => {
                    rig.function.lock().unwrap().reset();
                    rig.function.lock().unwrap().set_bar(0, BASE);
                    rig.config_write(0x04, &[6, 0]);
                }
            }
            let activation = rig.record.activation.lock().unwrap();
            let function = rig.function.lock().unwrap();
            if let Some(activation) = activation.as_ref() {
                prop_assert_eq!(function.status() & 0x0f, 0x0f);
                prop_assert_eq!(activation.features & !function.offered, 0);
                for queue in activation.queues.iter().filter(|queue| queue.queue.ready()) {
                    prop_assert!(queue.queue.is_valid(&memory));
                    prop_assert!(queue.queue.size() <= queue.queue.max_size());
                }
            } else {
                prop_assert!(!function.active);
            }
        }
    }
}
