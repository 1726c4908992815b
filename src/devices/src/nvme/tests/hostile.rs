//! Drivers that break the rules. The device neither dies (its threads would take the test down
//! with them) nor hangs, and works again after a reset.

use proptest::prelude::*;

use super::*;

/// The controller works after whatever was done to it.
fn recovers(rig: &Rig) {
    rig.function.lock().unwrap().reset();
    rig.power_on();
    rig.enable();
    rig.create_pair(1, 16);
    assert_eq!(rig.data(transfer(2, 0, 8, [DATA, 0])), OK);
}

#[test]
fn every_register_at_every_width() {
    let (rig, _file) = ready();
    for value in [0x00, 0xff, 0x5a] {
        for address in BASE - 8..BASE + 0x4008 {
            for width in [1, 2, 4, 8] {
                let mut data = [0; 8];
                rig.bus.read(address, &mut data[..width]);
                rig.bus.write(address, &[value; 8][..width]);
                rig.bus.read(address, &mut data[..width]);
            }
        }
    }
    recovers(&rig);
}

#[test]
fn doorbells_out_of_range() {
    let (rig, _file) = ready();
    for queue in [3, 4, 5, 100, 511] {
        rig.write(tail_doorbell(queue), 1);
        rig.write(head_doorbell(queue), 1);
    }
    for value in [64, 65, 0x7fff, 0xffff, u32::MAX] {
        for queue in [0, 1, 2] {
            rig.write(tail_doorbell(queue), value);
            rig.write(head_doorbell(queue), value);
        }
    }
    // Neither was believed.
    assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
    assert_eq!(rig.identify(1, 0)[0], 0x36);
    // A tail behind the head is a ring of old commands, which run once more.
    rig.write(tail_doorbell(1), 0);
    rig.until("the ring's commands", || rig.poll(1).is_none());
    recovers(&rig);
}

#[test]
fn identifiers_may_be_anything() {
    let (rig, _file) = ready();
    for round in 0..10 {
        let mut driver = rig.driver.lock().unwrap();
        let pair = driver.pairs.get_mut(&1).unwrap();
        for _ in 0..60 {
            let mut bytes = transfer(2, 0, 8, [DATA, 0]);
            bytes[2..4].copy_from_slice(&[7, 7]);
            rig.put(submission_ring(1) + u64::from(pair.tail) * 64, &bytes);
            pair.tail = (pair.tail + 1) % pair.size;
        }
        drop(driver);
        rig.ring(1);
        for _ in 0..60 {
            assert_eq!((rig.reap(1).id, round < 10), (0x0707, true));
        }
    }
    assert_eq!(rig.handle.statistics().totals().reads, 600);
}

#[test]
fn queues_deleted_in_use() {
    let (rig, _file) = ready();
    for _ in 0..100 {
        for _ in 0..60 {
            rig.fill(1, transfer(1, 0, 8, [DATA, 0]));
        }
        rig.ring(1);
        assert_eq!(rig.admin(command(4, 0, [0; 2], &[1])).0, failure(1, 0x0c));
        assert_eq!(rig.admin(command(0, 0, [0; 2], &[1])), (OK, 0));
        assert_eq!(rig.admin(command(4, 0, [0; 2], &[1])), (OK, 0));
        rig.write(tail_doorbell(1), 5);
        rig.create_pair(1, 64);
        assert_eq!(rig.data(command(0, 1, [0; 2], &[])), OK);
    }
}

#[test]
fn rings_over_each_other() {
    let (rig, _file) = ready();
    // A submission queue whose completions are its next commands.
    let ring = submission_ring(3);
    for (code, more) in [(5, 3 << 16 | 3), (1, 3 << 16 | 1)] {
        let words = [3 | 1023 << 16, more];
        assert_eq!(rig.admin(command(code, 0, [ring, 0], &words)), (OK, 0));
    }
    for tail in [1, 1023, 5, 700, 0, 1023] {
        rig.write(tail_doorbell(3), tail);
        rig.write(head_doorbell(3), tail);
    }
    assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
    recovers(&rig);
}

#[test]
fn resets_without_end() {
    let (rig, _file) = ready();
    for round in 0..300_u32 {
        rig.write(CC, ENABLED & !1);
        rig.write(CC, ENABLED);
        rig.write(tail_doorbell(0), round % 32);
        rig.write(CC, ENABLED | 1 << 14);
    }
    recovers(&rig);
}

#[derive(Debug, Clone)]
enum Act {
    Register(u64, u32),
    Wide(u64, [u8; 8], usize),
    Config(usize, [u8; 4]),
    Memory(u64, Vec<u8>),
    Command(u16, u8, u32, [u64; 2], [u32; 4]),
    Doorbell(u16, bool, u32),
    Enable,
    Cycle,
    Reset,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (DATA..DATA + 0x10_0000).prop_map(|at| at & !0x1ff),
        3 => (LISTS..LISTS + 0x1_0000).prop_map(|at| at & !7),
        1 => 0..MEMORY,
        1 => HIGH - 0x1000..HIGH + HIGH_BYTES,
        1 => any::<u64>(),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let code = prop_oneof![
        prop::sample::select(vec![0_u8, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7c]),
        any::<u8>(),
    ];
    let namespace = prop_oneof![4 => Just(1), 1 => any::<u32>()];
    let word = || prop_oneof![4 => 0..16_u32, 2 => Just(1 | 7 << 16), 1 => any::<u32>()];
    let words = [word(), word(), word(), word()];
    prop_oneof![
        2 => (0..16_u64, any::<u32>()).prop_map(|(at, value)| Act::Register(at * 4, value)),
        2 => (0..0x4010_u64, any::<[u8; 8]>(), 1..9_usize)
            .prop_map(|(at, data, width)| Act::Wide(at, data, width)),
        1 => (0..64_usize, any::<[u8; 4]>()).prop_map(|(at, data)| Act::Config(at * 4, data)),
        2 => (0..MEMORY - 64, prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, data)| Act::Memory(at, data)),
        12 => (0..4_u16, code, namespace, [address(), address()], words)
            .prop_map(|(queue, code, namespace, data, words)| Act::Command(queue, code, namespace, data, words)),
        3 => (0..5_u16, any::<bool>(), prop_oneof![0..64_u32, any::<u32>()])
            .prop_map(|(queue, head, value)| Act::Doorbell(queue, head, value)),
        1 => Just(Act::Enable),
        1 => Just(Act::Cycle),
        1 => Just(Act::Reset),
    ]
}

fn act_on(rig: &Rig, act: Act) {
    match act {
        Act::Register(at, value) => rig.write(at, value),
        Act::Wide(at, mut data, width) => {
            rig.bus.write(BASE + at, &data[..width]);
            rig.bus.read(BASE + at, &mut data[..width]);
        }
        Act::Config(at, data) => rig.config_write(at, &data),
        Act::Memory(at, data) => rig.put(at, &data),
        Act::Command(queue, code, namespace, data, words) => {
            let known = rig.driver.lock().unwrap().pairs.contains_key(&queue);
            if known {
                rig.submit(queue, command(code, namespace, data, &words));
                rig.poll(queue);
            }
        }
        Act::Doorbell(queue, false, value) => rig.write(tail_doorbell(queue), value),
        Act::Doorbell(queue, true, value) => rig.write(head_doorbell(queue), value),
        Act::Enable => {
            rig.write(CC, 0);
            rig.write(CC, ENABLED);
        }
        Act::Cycle => {
            let mut function = rig.function.lock().unwrap();
            function.pause();
            let saved = function.save();
            function.restore(&saved).unwrap();
            assert_eq!(function.save(), saved);
            function.resume();
        }
        Act::Reset => {
            rig.function.lock().unwrap().reset();
            rig.power_on();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn anything_in_any_order(acts in prop::collection::vec(act(), 0..120)) {
        let (rig, _file) = ready();
        for act in acts {
            act_on(&rig, act);
        }
        recovers(&rig);
    }

    /// A saved state from a stranger is taken or left, and the machine works on.
    #[test]
    fn any_saved_state(
        forgeries in prop::collection::vec((any::<prop::sample::Index>(), forged()), 1..8),
        acts in prop::collection::vec(act(), 0..40),
    ) {
        let (rig, _file) = ready();
        rig.submit(0, command(12, 0, [0; 2], &[]));
        rig.admin(command(0x7c, 0, [0x20_0000, 0x20_1000], &[]));
        {
            let mut function = rig.function.lock().unwrap();
            function.pause();
            let saved = function.save();
            let mut paths = Vec::new();
            leaves(&saved.body, "", &mut paths);
            // Most of it is configuration space, which another test forges.
            paths.retain(|path| !path.starts_with("/config"));
            for (leaf, value) in forgeries {
                let mut state = saved.clone();
                *state.body.pointer_mut(&paths[leaf.index(paths.len())]).unwrap() = value;
                let _ = function.restore(&state);
            }
            function.resume();
        }
        for act in acts {
            act_on(&rig, act);
        }
        recovers(&rig);
    }
}

/// Paths to everything in a saved state that is not a list or structure itself.
fn leaves(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, &format!("{path}/{name}"), found);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}/{index}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

fn forged() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<u8>().prop_map(Into::into),
        any::<u32>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        Just(serde_json::Value::Null),
    ]
}
