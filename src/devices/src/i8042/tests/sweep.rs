//! Guests, viewers and saved states that make no sense.

use proptest::prelude::*;

use super::machine::{Machine, cold};
use crate::bus::BusDevice;
use crate::i8042::{Key, MouseEvent, Stroke};
use crate::lifecycle::Device;

#[derive(Debug, Clone, Copy)]
enum Step {
    Read(u64, usize),
    Write(u64, [u8; 8], usize),
    /// A byte for the keyboard or the mouse.
    Tell(bool, u8),
    Key(u32, bool),
    Mouse(MouseEvent),
    Pause(bool),
    Save,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let event = (any::<[i32; 3]>(), any::<u8>()).prop_map(|([dx, dy, wheel], buttons)| {
        Step::Mouse(MouseEvent {
            dx,
            dy,
            wheel,
            buttons,
        })
    });
    prop_oneof![
        20 => (0..6_u64, 1..9_usize).prop_map(|(offset, width)| Step::Read(offset, width)),
        10 => (0..6_u64, any::<[u8; 8]>(), 1..9_usize)
            .prop_map(|(offset, data, width)| Step::Write(offset, data, width)),
        20 => (any::<bool>(), any::<u8>()).prop_map(|(aux, byte)| Step::Tell(aux, byte)),
        20 => (0..0x110_u32, any::<bool>()).prop_map(|(xt, pressed)| Step::Key(xt, pressed)),
        10 => event,
        1 => any::<bool>().prop_map(Step::Pause),
        1 => Just(Step::Save),
        1 => Just(Step::Reset),
    ]
}

fn take(machine: &Machine, step: Step) {
    let lock = || machine.i8042.lock().unwrap();
    match step {
        Step::Read(offset, width) => lock().read(offset, &mut [0; 8][..width]),
        Step::Write(offset, data, width) => lock().write(offset, &data[..width]),
        Step::Tell(aux, byte) => {
            if aux {
                machine.put(0x64, 0xd4);
            }
            machine.put(0x60, byte);
        }
        Step::Key(xt, pressed) => {
            if let Some(key) = Key::from_xt(xt) {
                machine.keyboard.key(key, pressed);
            }
        }
        Step::Mouse(event) => machine.mouse.event(event),
        Step::Pause(true) => lock().pause(),
        Step::Pause(false) => lock().resume(),
        Step::Save => {
            let saved = lock().save();
            lock().restore(&saved).unwrap();
            assert_eq!(lock().save(), saved);
        }
        Step::Reset => lock().reset(),
    }
}

fn lines_tell_the_truth(machine: &Machine) -> bool {
    let i8042 = machine.i8042.lock().unwrap();
    machine.keyboard_line.high() == i8042.keyboard_irq_level()
        && machine.mouse_line.high() == i8042.mouse_irq_level()
}

/// However it was treated, the controller runs dry, and works again after a self test and resets.
fn recovers(machine: &Machine) {
    machine.i8042.lock().unwrap().resume();
    for _ in 0..5_000 {
        machine.get(0x60);
    }
    assert_eq!(machine.get(0x64) & 1, 0, "endless output");
    machine.put(0x64, 0xaa);
    assert_eq!(machine.next(), (0x55, false));
    machine.control(0x47);
    machine.drain();
    machine.put(0x60, 0xff);
    let answer = machine.drain();
    assert_eq!(answer[answer.len() - 2..], [(0xfa, false), (0xaa, false)]);
    machine.put(0x64, 0xd4);
    machine.put(0x60, 0xff);
    assert_eq!(machine.packets(), [0xfa, 0xaa, 0x00]);
    assert!(machine.press(0x1e));
    assert_eq!(machine.codes(), [0x1e]);
}

fn leaves(value: &serde_json::Value, path: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, format!("{path}/{name}"), found);
            }
        }
        _ => found.push(path),
    }
}

fn forged() -> impl Strategy<Value = serde_json::Value> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        any::<u8>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        Just(serde_json::Value::Null),
        bytes.prop_map(Into::into),
        any::<[i32; 3]>().prop_map(
            |[dx, dy, wheel]| serde_json::json!([{"dx": dx, "dy": dy, "wheel": wheel, "buttons": 1}])
        ),
    ]
}

proptest! {
    #[test]
    fn survives_anything(steps in proptest::collection::vec(step(), 0..400)) {
        let machine = cold();
        for step in steps {
            take(&machine, step);
            prop_assert!(lines_tell_the_truth(&machine));
        }
        let saved = machine.i8042.lock().unwrap().save();
        let other = cold();
        other.i8042.lock().unwrap().pause();
        other.i8042.lock().unwrap().restore(&saved).unwrap();
        prop_assert_eq!(other.i8042.lock().unwrap().save(), saved);
        recovers(&machine);
        recovers(&other);
    }

    #[test]
    fn survives_any_saved_state(
        before in proptest::collection::vec(step(), 0..50),
        forgeries in proptest::collection::vec((any::<proptest::sample::Index>(), forged()), 1..8),
        after in proptest::collection::vec(step(), 0..100),
    ) {
        let machine = cold();
        for step in before {
            take(&machine, step);
        }
        let mut state = machine.i8042.lock().unwrap().save();
        let mut paths = Vec::new();
        leaves(&state.body, String::new(), &mut paths);
        for (leaf, value) in forgeries {
            let mut forged = state.clone();
            *forged.body.pointer_mut(&paths[leaf.index(paths.len())]).unwrap() = value;
            if machine.i8042.lock().unwrap().restore(&forged).is_ok() {
                state = forged;
            }
        }
        for step in after {
            take(&machine, step);
            prop_assert!(lines_tell_the_truth(&machine));
        }
        recovers(&machine);
    }

    #[test]
    fn any_keysym_and_character(keysym: u32, character: char) {
        for stroke in [Stroke::of_keysym(keysym), Stroke::of_char(character)].into_iter().flatten() {
            prop_assert!(stroke.events().count() <= 4);
        }
    }
}
