//! The mouse, as its guest sees it.

use super::machine::{Machine, NOTHING, raw};
use crate::i8042::{
    BUTTON_BACK, BUTTON_FORWARD, BUTTON_LEFT, BUTTON_MIDDLE, BUTTON_RIGHT, MouseEvent,
};

/// A mouse that reports, of the kind a driver asked for.
fn reporting(rates: [u8; 3]) -> Machine {
    let machine = raw();
    for rate in rates {
        machine.order_mouse(&[0xf3, rate]);
    }
    machine.order_mouse(&[0xf4]);
    machine
}

const PLAIN: [u8; 3] = [100, 100, 100];
const WHEEL: [u8; 3] = [200, 100, 80];
const FIVE_BUTTONS: [u8; 3] = [200, 200, 80];

fn turn(machine: &Machine, wheel: i32, buttons: u8) {
    machine.mouse.event(MouseEvent {
        wheel,
        buttons,
        ..MouseEvent::default()
    });
}

fn click(machine: &Machine, buttons: u8) {
    turn(machine, 0, buttons);
}

#[test]
fn becomes_what_it_is_asked_for() {
    for (rates, identity) in [
        (PLAIN, 0),
        (WHEEL, 3),
        (FIVE_BUTTONS, 4),
        ([100, 200, 80], 0),
    ] {
        let machine = reporting(rates);
        assert_eq!(machine.tell_mouse(0xf2), [0xfa, identity]);
        // The defaults do not change it, a reset does.
        machine.order_mouse(&[0xf6]);
        assert_eq!(machine.tell_mouse(0xf2), [0xfa, identity]);
        assert_eq!(machine.tell_mouse(0xff), [0xfa, 0xaa, 0x00]);
        assert_eq!(machine.tell_mouse(0xf2), [0xfa, 0]);
    }
    // Only rates in a row count.
    let machine = raw();
    machine.order_mouse(&[0xf3, 200, 0xf3, 100, 0xe6, 0xf3, 80]);
    assert_eq!(machine.tell_mouse(0xf2), [0xfa, 0]);
}

#[test]
fn sends_packets() {
    let machine = reporting(PLAIN);
    machine.move_mouse(5, 0);
    assert_eq!(machine.packets(), [0x08, 5, 0]);
    // Down the screen is negative.
    machine.move_mouse(-5, 3);
    assert_eq!(machine.packets(), [0x38, 0xfb, 0xfd]);
    machine.move_mouse(255, -255);
    assert_eq!(machine.packets(), [0x08, 0xff, 0xff]);
    // Farther than a packet reaches.
    machine.move_mouse(-300, 600);
    let packets = [0x38, 1, 1, 0x38, 0xd3, 1, 0x28, 0, 0xa6];
    assert_eq!(machine.packets(), packets);
    machine.move_mouse(0, 0);
    turn(&machine, 1, 0);
    assert_eq!(machine.packets(), NOTHING, "nothing to tell");
    for (button, bit) in [(BUTTON_LEFT, 1), (BUTTON_RIGHT, 2), (BUTTON_MIDDLE, 4)] {
        click(&machine, button);
        assert_eq!(machine.packets(), [8 | bit, 0, 0]);
    }
    click(&machine, BUTTON_MIDDLE | BUTTON_BACK);
    assert_eq!(machine.packets(), NOTHING, "no such button");
}

#[test]
fn turns_its_wheel() {
    let machine = reporting(WHEEL);
    turn(&machine, 1, 0);
    assert_eq!(machine.packets(), [8, 0, 0, 1]);
    turn(&machine, -1, 0);
    assert_eq!(machine.packets(), [8, 0, 0, 0xff]);
    turn(&machine, 10, 0);
    assert_eq!(machine.packets(), [8, 0, 0, 7, 8, 0, 0, 3]);

    let machine = reporting(FIVE_BUTTONS);
    turn(&machine, -1, BUTTON_BACK | BUTTON_LEFT);
    assert_eq!(machine.packets(), [9, 0, 0, 0x1f]);
    turn(&machine, 1, BUTTON_FORWARD);
    assert_eq!(machine.packets(), [8, 0, 0, 0x21]);
}

#[test]
fn motion_adds_up_and_clicks_are_kept() {
    let machine = reporting(PLAIN);
    machine.move_mouse(1, 0);
    // The first packet is on its way; the rest waits and becomes one.
    for _ in 0..10 {
        machine.move_mouse(2, 1);
    }
    click(&machine, BUTTON_LEFT);
    click(&machine, 0);
    let packets = [8, 1, 0, 0x28, 20, 0xf6, 9, 0, 0, 8, 0, 0];
    assert_eq!(machine.packets(), packets);
    // However much happens, there is an end, and the last state of the buttons is told.
    for at in 0..1000_u32 {
        machine.mouse.event(MouseEvent {
            dx: i32::MAX,
            dy: i32::MIN,
            wheel: i32::MAX,
            buttons: u8::from(at % 2 == 1),
        });
    }
    let packets = machine.packets();
    assert!(packets.len() < 3000, "{} bytes", packets.len());
    assert_eq!(packets[packets.len() - 3] & 1, 1);
}

#[test]
fn answers_commands() {
    let machine = raw();
    assert_eq!(machine.tell_mouse(0xe9), [0xfa, 0x00, 2, 100]);
    machine.order_mouse(&[0xf4, 0xe8, 3, 0xf3, 40, 0xe7]);
    click(&machine, BUTTON_LEFT | BUTTON_RIGHT);
    machine.drain();
    assert_eq!(machine.tell_mouse(0xe9), [0xfa, 0x35, 3, 40]);
    machine.order_mouse(&[0xf6]);
    assert_eq!(machine.tell_mouse(0xe9), [0xfa, 0x05, 2, 100]);
    machine.order_mouse(&[0xe8]);
    assert_eq!(machine.tell_mouse(4), [0xfe]);
    assert_eq!(machine.tell_mouse(0x42), [0xfe]);
    assert_eq!(machine.tell_mouse(0xe1), [0xfe]);
    // A command in place of an option counts.
    machine.order_mouse(&[0xf3]);
    assert_eq!(machine.tell_mouse(0xff), [0xfa, 0xaa, 0x00]);
    assert_eq!(machine.tell_mouse(0xfe), [0x00]);
}

#[test]
fn reports_only_when_told() {
    let machine = raw();
    machine.move_mouse(1, 1);
    assert_eq!(machine.packets(), NOTHING);
    machine.order_mouse(&[0xf4]);
    assert_eq!(machine.packets(), NOTHING, "what was before does not count");
    machine.move_mouse(1, 0);
    machine.put(0x64, 0xd4);
    machine.put(0x60, 0xf5);
    assert_eq!(machine.packets(), [8, 0xfa], "the rest is dropped");
}

#[test]
fn reports_when_asked() {
    let machine = raw();
    machine.order_mouse(&[0xf0]);
    machine.move_mouse(3, 0);
    machine.move_mouse(4, 0);
    assert_eq!(machine.packets(), NOTHING);
    assert_eq!(machine.tell_mouse(0xeb), [0xfa, 8, 7, 0]);
    assert_eq!(machine.tell_mouse(0xeb), [0xfa, 8, 0, 0]);
    assert_eq!(machine.tell_mouse(0xe9)[1], 0x40);
    machine.order_mouse(&[0xea, 0xf4]);
    machine.move_mouse(1, 0);
    assert_eq!(machine.packets(), [8, 1, 0]);
}

#[test]
fn returns_what_it_is_sent() {
    let machine = raw();
    machine.order_mouse(&[0xf4, 0xee]);
    assert_eq!(machine.tell_mouse(0x12), [0x12]);
    assert_eq!(machine.tell_mouse(0xf4), [0xf4]);
    machine.move_mouse(1, 0);
    assert_eq!(machine.packets(), NOTHING);
    assert_eq!(machine.tell_mouse(0xec), [0xfa, 8, 1, 0]);
    machine.order_mouse(&[0xee]);
    assert_eq!(machine.tell_mouse(0xff), [0xfa, 0xaa, 0x00]);
}

#[test]
fn scales() {
    let machine = reporting(PLAIN);
    machine.order_mouse(&[0xe7]);
    for (way, scaled) in [(1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (127, 254)] {
        machine.move_mouse(way, way);
        let negative = 0_u8.wrapping_sub(scaled);
        assert_eq!(machine.packets(), [0x28, scaled, negative]);
    }
    machine.move_mouse(128, 0);
    assert_eq!(machine.packets(), [8, 254, 0, 8, 1, 0]);
    // Not when asked.
    machine.order_mouse(&[0xf0]);
    machine.move_mouse(6, 0);
    assert_eq!(machine.tell_mouse(0xeb), [0xfa, 8, 6, 0]);
}
