//! The controller between a guest and its devices.

use super::machine::{cold, raw, translated};
use super::*;
use crate::lifecycle::Device;

#[test]
fn every_byte_makes_an_edge() {
    let machine = translated();
    machine.press(0x1e);
    machine.press(0x1f);
    assert_eq!(*machine.keyboard_line.levels.lock().unwrap(), [true]);
    assert_eq!(machine.next(), (0x1e, false));
    assert_eq!(machine.next(), (0x1f, false));
    let edges = [true, false, true, false];
    assert_eq!(*machine.keyboard_line.levels.lock().unwrap(), edges);
    assert!(machine.mouse_line.levels.lock().unwrap().is_empty());

    machine.order_mouse(&[0xf4]);
    machine.mouse_line.levels.lock().unwrap().clear();
    machine.move_mouse(1, 0);
    assert!(machine.mouse_line.high());
    assert_eq!(machine.packets(), [0x08, 1, 0]);
    let edges = [true, false, true, false, true, false];
    assert_eq!(*machine.mouse_line.levels.lock().unwrap(), edges);
    assert!(!machine.keyboard_line.high());
}

#[test]
fn interrupts_only_when_told() {
    let machine = cold();
    machine.control(0x00);
    machine.press(0x1e);
    assert!(!machine.keyboard_line.high());
    machine.control(0x01);
    assert!(machine.keyboard_line.high());
    assert_eq!(machine.ask(0xd0) & 0x30, 0x10, "seen in the output port");
    machine.control(0x00);
    assert!(!machine.keyboard_line.high());
    assert_eq!(machine.ask(0xd0) & 0x30, 0x00);
    assert_eq!(machine.ask(0xc0), 0x80);
}

#[test]
fn ports_can_be_closed() {
    let machine = translated();
    machine.order_mouse(&[0xf4]);
    machine.put(0x64, 0xad);
    machine.put(0x64, 0xa7);
    machine.press(0x1e);
    machine.move_mouse(1, 0);
    assert_eq!(machine.drain(), []);
    assert_eq!(machine.ask(0x20), 0x77);
    machine.put(0x64, 0xa8);
    assert_eq!(machine.packets(), [0x08, 1, 0]);
    machine.put(0x64, 0xae);
    assert_eq!(machine.codes(), [0x1e]);
    // A byte for a device opens its port.
    machine.put(0x64, 0xad);
    machine.put(0x64, 0xa7);
    assert_eq!(machine.tell_keyboard(0xee), [0xee]);
    assert_eq!(machine.ask(0x20), 0x67);
    assert_eq!(machine.tell_mouse(0xf2), [0xfa, 0]);
    assert_eq!(machine.ask(0x20), 0x47);
}

#[test]
fn its_answers_go_first_and_nothing_is_lost() {
    let machine = translated();
    machine.order_mouse(&[0xf4]);
    machine.move_mouse(1, 0);
    machine.press(0x1e);
    // The packet's first byte is in the buffer.
    assert_eq!(machine.get(0x64) & 0x21, 0x21);
    assert_eq!(machine.ask(0x20), 0x47);
    machine.put(0x64, 0xd2);
    machine.put(0x60, 0x55);
    assert!(machine.keyboard_line.high());
    // An answer that is not read makes way for the next, as ever.
    machine.put(0x64, 0xab);
    let expected = [
        (0, false),
        (0x08, true),
        (0x1e, false),
        (1, true),
        (0, true),
    ];
    assert_eq!(machine.drain(), expected);
}

#[test]
fn writes_the_buffers() {
    let machine = translated();
    machine.put(0x64, 0xd3);
    machine.put(0x60, 0xa5);
    assert!(machine.mouse_line.high());
    assert!(!machine.keyboard_line.high());
    assert_eq!(machine.next(), (0xa5, true));
    machine.put(0x64, 0xd2);
    machine.put(0x60, 0x5a);
    assert!(machine.keyboard_line.high());
    assert_eq!(machine.next(), (0x5a, false), "not translated");
    assert_eq!(machine.ask(0xa9), 0);
    assert_eq!(machine.ask(0xab), 0);
}

#[test]
fn a_self_test_drops_what_was_received() {
    let machine = raw();
    machine.press(0x1e);
    assert_eq!(machine.ask(0xaa), 0x55);
    assert_eq!(machine.drain(), []);
}

#[test]
fn holds_back_while_paused() {
    let machine = translated();
    machine.i8042.lock().unwrap().pause();
    assert!(machine.press(0x1e));
    assert_eq!(machine.get(0x64) & 1, 0);
    assert!(!machine.keyboard_line.high());
    let saved = machine.i8042.lock().unwrap().save();
    machine.i8042.lock().unwrap().resume();
    assert!(machine.keyboard_line.high());
    assert_eq!(machine.codes(), [0x1e]);

    let other = cold();
    other.i8042.lock().unwrap().pause();
    other.i8042.lock().unwrap().restore(&saved).unwrap();
    assert!(!other.keyboard_line.high());
    other.i8042.lock().unwrap().resume();
    assert!(other.keyboard_line.high());
    assert_eq!(other.codes(), [0x1e]);
    // The guest still takes the key for held.
    assert!(other.release(0x1e));
    assert_eq!(other.codes(), [0x9e]);
}

#[test]
fn restores_in_the_middle() {
    let machine = translated();
    machine.order_mouse(&[0xf4, 0xf3]);
    machine.move_mouse(300, 0);
    machine.press(0xc8);
    machine.release(0xc8);
    machine.put(0x60, 0xed);
    let saved = machine.i8042.lock().unwrap().save();
    assert_eq!(saved.version, 2);
    let other = cold();
    other.i8042.lock().unwrap().restore(&saved).unwrap();
    assert_eq!(other.i8042.lock().unwrap().save(), saved);
    assert!(other.mouse_line.high());
    assert_eq!(other.drain(), machine.drain());
    assert_eq!(other.tell_keyboard(0x07), [0xfa]);
    assert_eq!(other.keyboard.leds(), 7);
}

#[test]
fn restores_what_had_no_devices() {
    let old = DeviceState {
        kind: "keyboard-i8042".to_owned(),
        version: 1,
        body: serde_json::json!({
            "status": 0x14, "control": 0x47, "output_port": 0xc3, "data": 0, "memory": vec![0; 32],
        }),
    };
    let mut bare = rig();
    bare.i8042.restore(&old).unwrap();
    let machine = raw();
    machine.press(0x1e);
    machine.i8042.lock().unwrap().restore(&old).unwrap();
    assert_eq!(machine.drain(), []);
    assert_eq!(machine.ask(0x20), 0x47);
    machine.press(0x1e);
    assert_eq!(machine.codes(), [0x1e]);
    // The other way round a guest would lose its keyboard.
    let saved = machine.i8042.lock().unwrap().save();
    assert!(bare.i8042.restore(&saved).is_err());
    assert_eq!(bare.i8042.save().body["control"], 0x47, "unchanged");
}

#[test]
fn refuses_impossible_devices() {
    let machine = raw();
    let saved = machine.i8042.lock().unwrap().save();
    let step = |dx: i64, buttons: u8| serde_json::json!({"dx": dx, "dy": 0, "wheel": 0, "buttons": buttons});
    for (path, value) in [
        ("/keyboard/set", serde_json::json!(0)),
        ("/keyboard/set", serde_json::json!(4)),
        ("/keyboard/codes", serde_json::json!(vec![0x1c; 10_000])),
        ("/keyboard/link/answers", serde_json::json!(vec![0xfa; 17])),
        ("/mouse/link/answers", serde_json::json!(vec![0xfa; 17])),
        ("/mouse/identity", serde_json::json!(5)),
        ("/mouse/packet", serde_json::json!([8, 0, 0, 0, 0])),
        ("/mouse/steps", serde_json::json!(vec![step(1, 0); 9])),
        ("/mouse/steps", serde_json::json!([step(1 << 20, 0)])),
        ("/mouse/steps", serde_json::json!([step(1, 0x20)])),
        ("/mouse", serde_json::json!(null)),
    ] {
        let mut bad = saved.clone();
        let place = bad.body["devices"].pointer_mut(path);
        *place.unwrap() = value;
        let result = machine.i8042.lock().unwrap().restore(&bad);
        assert!(result.is_err(), "{path}");
    }
    assert_eq!(machine.i8042.lock().unwrap().save(), saved);
}

#[test]
fn a_reset_unplugs_nothing() {
    let machine = translated();
    machine.press(0x1e);
    machine.i8042.lock().unwrap().reset();
    assert!(!machine.keyboard_line.high());
    machine.control(0x47);
    assert_eq!(machine.drain(), []);
    assert!(!machine.release(0x1e), "forgotten");
    machine.press(0x1f);
    assert_eq!(machine.codes(), [0x1f]);
}
