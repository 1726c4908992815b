//! The keyboard, as its guest sees it.

use super::machine::{Machine, NOTHING, raw, translated};
use crate::i8042::Stroke;

/// What pressing and then releasing a key sends.
fn stroke(machine: &Machine, xt: u32) -> [Vec<u8>; 2] {
    assert!(machine.press(xt));
    let down = machine.codes();
    machine.release(xt);
    [down, machine.codes()]
}

/// Chooses a scan code set.
fn choose(machine: &Machine, set: u8) {
    assert_eq!(machine.tell_keyboard(0xf0), [0xfa]);
    assert_eq!(machine.tell_keyboard(set), [0xfa]);
}

#[test]
fn sends_each_set() {
    let machine = raw();
    assert_eq!(stroke(&machine, 0x1e), [vec![0x1c], vec![0xf0, 0x1c]]);
    let up = [vec![0xe0, 0x75], vec![0xe0, 0xf0, 0x75]];
    assert_eq!(stroke(&machine, 0xc8), up);
    choose(&machine, 1);
    assert_eq!(stroke(&machine, 0x1e), [vec![0x1e], vec![0x9e]]);
    choose(&machine, 3);
    assert_eq!(stroke(&machine, 0xc8), [vec![0x63], vec![0xf0, 0x63]]);
    // No volume key in set 3.
    assert!(!machine.press(0xae));
    choose(&machine, 2);
    machine.control(0x47);
    assert_eq!(stroke(&machine, 0xc8), [vec![0xe0, 0x48], vec![0xe0, 0xc8]]);
}

#[test]
fn names_its_set() {
    let machine = raw();
    for (set, translated) in [(1, 0x43), (3, 0x3f), (2, 0x41)] {
        choose(&machine, set);
        machine.tell_keyboard(0xf0);
        assert_eq!(machine.tell_keyboard(0), [0xfa, set]);
        machine.control(0x47);
        machine.tell_keyboard(0xf0);
        assert_eq!(machine.tell_keyboard(0), [0xfa, translated]);
        machine.control(0x07);
    }
    machine.tell_keyboard(0xf0);
    assert_eq!(machine.tell_keyboard(4), [0xfe]);
}

#[test]
fn keys_with_a_history() {
    let machine = translated();
    let pause = vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5];
    assert_eq!(stroke(&machine, 0xc6), [pause, vec![]]);
    let full = [vec![0xe0, 0x2a, 0xe0, 0x37], vec![0xe0, 0xb7, 0xe0, 0xaa]];
    for number in [0xb7, 0x54] {
        assert_eq!(stroke(&machine, number), full, "either number");
    }
    for shift in [0x2a, 0x36, 0x1d, 0x9d] {
        machine.press(shift);
        machine.drain();
        let short = [vec![0xe0, 0x37], vec![0xe0, 0xb7]];
        assert_eq!(stroke(&machine, 0xb7), short);
        machine.release(shift);
        machine.drain();
    }
    machine.press(0x1d);
    machine.drain();
    let control_break = vec![0xe0, 0x46, 0xe0, 0xc6];
    assert_eq!(stroke(&machine, 0xc6), [control_break, vec![]]);
    machine.release(0x1d);
    // With Alt it is the system request key, also if Alt comes up first.
    machine.press(0x38);
    machine.drain();
    machine.press(0xb7);
    machine.release(0x38);
    machine.release(0xb7);
    assert_eq!(machine.codes(), [0x54, 0xb8, 0xd4]);

    let machine = raw();
    let pause = vec![0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77];
    assert_eq!(stroke(&machine, 0xc6), [pause, vec![]]);
    let down = vec![0xe0, 0x12, 0xe0, 0x7c];
    let up = vec![0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12];
    assert_eq!(stroke(&machine, 0xb7), [down, up]);
}

#[test]
fn answers_commands() {
    let machine = raw();
    for (sent, answer) in [
        (0xee, &[0xee][..]),
        (0xf2, &[0xfa, 0xab, 0x83]),
        (0xf3, &[0xfa]),
        (0x20, &[0xfa]),
        (0xf3, &[0xfa]),
        (0x80, &[0xfe]),
        (0xf4, &[0xfa]),
        (0xf5, &[0xfa]),
        (0xf6, &[0xfa]),
        (0xf8, &[0xfa]),
        (0xfb, &[0xfa]),
        (0x1c, &[0xfa]),
        (0x32, &[0xfa]),
        (0xff, &[0xfa, 0xaa]),
        (0xfe, &[0xaa]),
        (0x00, &[0xfe]),
        (0xfe, &[0xaa]),
        (0xef, &[0xfe]),
        (0xf1, &[0xfe]),
    ] {
        assert_eq!(machine.tell_keyboard(sent), answer, "{sent:#x}");
    }
    machine.control(0x47);
    assert_eq!(machine.tell_keyboard(0xf2), [0xfa, 0xab, 0x41]);
}

#[test]
fn has_lights() {
    let machine = translated();
    machine.tell_keyboard(0xed);
    assert_eq!(machine.tell_keyboard(0x02), [0xfa]);
    assert_eq!(machine.keyboard.leds(), 2);
    // A command in place of the option counts.
    machine.tell_keyboard(0xed);
    assert_eq!(machine.tell_keyboard(0xee), [0xee]);
    assert_eq!(machine.tell_keyboard(0x07), [0xfe]);
    assert_eq!(machine.keyboard.leds(), 2);
    machine.tell_keyboard(0xff);
    assert_eq!(machine.keyboard.leds(), 0);
}

#[test]
fn stops_and_starts() {
    let machine = translated();
    machine.press(0x1e);
    machine.drain();
    machine.tell_keyboard(0xf5);
    assert!(!machine.press(0x1f));
    assert!(machine.keyboard.ready(), "nobody waits for it");
    assert_eq!(machine.codes(), NOTHING);
    machine.tell_keyboard(0xf4);
    assert!(!machine.release(0x1e));
    assert!(machine.press(0x1f));
    assert_eq!(machine.codes(), [0x1f]);
}

#[test]
fn answers_before_scan_codes() {
    let machine = translated();
    machine.press(0xc8);
    machine.release(0xc8);
    // The first byte is out already; identification comes in the middle of the codes.
    machine.put(0x60, 0xf2);
    let expected = [0xe0, 0xfa, 0xab, 0x41, 0x48, 0xe0, 0xc8];
    assert_eq!(machine.codes(), expected);
    machine.press(0x1e);
    machine.press(0x1e);
    machine.put(0x60, 0xff);
    assert_eq!(machine.codes(), [0x1e, 0xfa, 0xaa], "a reset forgets");
}

#[test]
fn loses_presses_but_no_releases() {
    let machine = raw();
    let mut pressed = 0;
    while machine.press(0x02 + pressed) {
        pressed += 1;
    }
    // One in the controller.
    assert_eq!(pressed, 15);
    assert!(!machine.keyboard.ready());
    assert!(!machine.press(0x39));
    for key in 0..=pressed {
        assert_eq!(machine.release(0x02 + key), key < pressed);
    }
    let codes = machine.codes();
    assert_eq!(codes[15], 0x00, "overrun, told once");
    assert_eq!(codes[14..].iter().filter(|code| **code == 0).count(), 1);
    assert_eq!(codes.len(), 16 + 15 * 2);
    assert!(machine.keyboard.ready());

    choose(&machine, 1);
    while machine.press(0x1e) {}
    assert_eq!(machine.codes().last(), Some(&0xff));
    machine.keyboard.release_all();
    assert_eq!(machine.codes(), [0x9e]);
    machine.keyboard.release_all();
    assert_eq!(machine.codes(), NOTHING);
}

/// Linux takes a controller with more than 16 bytes in it for broken.
#[test]
fn can_be_emptied_by_linux() {
    for set in 1..=3 {
        let machine = raw();
        choose(&machine, set);
        for _ in 0..40 {
            machine.press(0x1e);
        }
        assert!(machine.codes().len() <= 16);
    }
}

#[test]
fn types_a_text() {
    let machine = translated();
    let mut seen = Vec::new();
    for character in "Hi, ~root!\n".chars() {
        // There is always room for the next stroke once the guest has read.
        if !machine.keyboard.ready() {
            seen.extend(machine.codes());
            assert!(machine.keyboard.ready());
        }
        for (key, pressed) in Stroke::of_char(character).unwrap().events() {
            assert!(machine.keyboard.key(key, pressed));
        }
    }
    seen.extend(machine.codes());
    let expected = [
        0x2a, 0x23, 0xa3, 0xaa, 0x17, 0x97, 0x33, 0xb3, 0x39, 0xb9, 0x2a, 0x29, 0xa9, 0xaa, 0x13,
        0x93, 0x18, 0x98, 0x18, 0x98, 0x14, 0x94, 0x2a, 0x02, 0x82, 0xaa, 0x1c, 0x9c,
    ];
    assert_eq!(seen, expected);
}
