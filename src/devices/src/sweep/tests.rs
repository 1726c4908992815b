//! In order and at random.

use proptest::prelude::*;
use vm_memory::Bytes as _;

use super::*;
use crate::event_loop::EventLoop;
use crate::lifecycle::LifecycleError;

const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// The machine, with a thread for its slow devices.
fn machine() -> Machine {
    let events = EventLoop::new().unwrap();
    let machine = super::machine(&events.handle());
    events.spawn("sweep", || {}).unwrap();
    machine
}

#[test]
fn every_offset_at_every_width() {
    let mut machine = machine();
    for (ports, base, length) in machine.ranges() {
        for value in [0x00, 0xff, 0x5a] {
            // From before the range to after it.
            for address in base.saturating_sub(8)..base + length + 8 {
                for width in WIDTHS {
                    let mut data = [0; 8];
                    machine.bus(ports).read(address, &mut data[..width]);
                    machine.bus(ports).write(address, &[value; 8][..width]);
                    machine.bus(ports).read(address, &mut data[..width]);
                }
            }
        }
        machine.power_cycle();
    }
}

#[test]
fn the_set_saves_and_restores() {
    let mut machine = machine();
    assert!(matches!(
        machine.devices.save(),
        Err(LifecycleError::Running)
    ));
    machine.devices.pause();
    let saved = machine.devices.save().unwrap();
    assert_eq!(saved.devices.len(), 21);
    let mut other = self::machine();
    assert!(matches!(
        other.devices.restore(&saved),
        Err(LifecycleError::Running)
    ));
    other.devices.pause();
    let mut fewer = saved.clone();
    fewer.devices.pop();
    assert!(matches!(
        other.devices.restore(&fewer),
        Err(LifecycleError::Devices { .. })
    ));
    // A release before some devices came.
    let earlier = |(name, _): &(String, _)| {
        !["vmgenid", "pvpanic", "tablet", "hotplug"].contains(&name.as_str())
    };
    let mut old = saved.clone();
    old.devices.retain(earlier);
    assert_eq!(old.devices.len(), 17);
    other.devices.restore(&old).unwrap();
    let mut twice = saved.clone();
    twice.devices.push(saved.devices[0].clone());
    assert!(matches!(
        other.devices.restore(&twice),
        Err(LifecycleError::Devices { .. })
    ));
    let mut mixed = saved.clone();
    mixed.devices[0].1 = mixed.devices[2].1.clone();
    assert!(matches!(
        other.devices.restore(&mixed),
        Err(LifecycleError::Restore { .. })
    ));
    other.devices.restore(&saved).unwrap();
    assert_eq!(other.devices.save().unwrap(), saved);
    other.devices.resume();
    machine.devices.resume();
}

/// Paths to everything in a saved state that is not a list or structure itself.
fn leaves(value: &serde_json::Value, path: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, format!("{path}/{name}"), found);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, format!("{path}/{index}"), found);
            }
        }
        _ => found.push(path),
    }
}

fn forged() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<u8>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        Just(serde_json::Value::Null),
        Just(serde_json::json!([])),
        Just(serde_json::json!("x")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_anywhere(steps in proptest::collection::vec(
        (any::<proptest::sample::Index>(), 0..0x8008_u64, 0..4_usize, any::<[u8; 8]>(), 0..40_u8), 0..400,
    )) {
        let mut machine = machine();
        for (range, offset, width, mut data, kind) in steps {
            let ranges = machine.ranges();
            let (ports, base, length) = ranges[range.index(ranges.len())];
            let address = base + offset % (length + 8);
            let data = &mut data[..WIDTHS[width]];
            match kind {
                0 => {
                    machine.devices.pause();
                    let saved = machine.devices.save().unwrap();
                    machine.devices.restore(&saved).unwrap();
                    prop_assert_eq!(machine.devices.save().unwrap(), saved);
                    machine.devices.resume();
                }
                1 => machine.power_cycle(),
                2 => machine.ram.write_slice(data, GuestAddress(offset)).unwrap(),
                3..20 => machine.bus(ports).read(address, data),
                _ => machine.bus(ports).write(address, data),
            }
        }
    }

    /// A saved state from a stranger: each device takes it or leaves it, and works on.
    #[test]
    fn any_saved_state(
        forgeries in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), forged()), 1..8),
        steps in proptest::collection::vec((any::<proptest::sample::Index>(), 0..0x8008_u64, 0..4_usize, any::<[u8; 8]>()), 0..50),
    ) {
        let mut machine = machine();
        machine.devices.pause();
        let saved = machine.devices.save().unwrap();
        for (device, leaf, value) in forgeries {
            let (name, state) = &saved.devices[device.index(saved.devices.len())];
            let mut paths = Vec::new();
            leaves(&state.body, String::new(), &mut paths);
            if paths.is_empty() {
                continue;
            }
            let mut state = state.clone();
            *state.body.pointer_mut(&paths[leaf.index(paths.len())]).unwrap() = value;
            let device = machine.devices.iter().find(|device| device.lock().unwrap().name() == name);
            let _ = device.unwrap().lock().unwrap().restore(&state);
        }
        machine.devices.resume();
        for (range, offset, width, mut data) in steps {
            let ranges = machine.ranges();
            let (ports, base, length) = ranges[range.index(ranges.len())];
            let address = base + offset % (length + 8);
            machine.bus(ports).read(address, &mut data[..WIDTHS[width]]);
            machine.bus(ports).write(address, &data[..WIDTHS[width]]);
        }
        machine.power_cycle();
    }
}
