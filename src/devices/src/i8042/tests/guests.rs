//! What the drivers of well-known guests do when they start, step by step.

use super::machine::{Machine, cold};
use crate::i8042::MouseEvent;

/// Sends a command to the keyboard and checks its whole answer.
fn keyboard(machine: &Machine, sent: u8, answer: &[u8]) {
    assert_eq!(machine.tell_keyboard(sent), answer, "keyboard {sent:#x}");
}

fn mouse(machine: &Machine, sent: u8, answer: &[u8]) {
    assert_eq!(machine.tell_mouse(sent), answer, "mouse {sent:#x}");
}

/// Linux, `drivers/input/serio/i8042.c`, then `atkbd` and `psmouse`.
fn linux(machine: &Machine) {
    machine.drain();
    // The command byte is read until two readings agree.
    let control = machine.ask(0x20);
    assert_eq!(machine.ask(0x20), control);
    machine.control(control & !0x03 | 0x30);
    // The auxiliary port: loop, disable, enable, test, interrupt.
    machine.put(0x64, 0xd3);
    machine.put(0x60, 0x5a);
    assert_eq!(machine.next(), (0x5a, true));
    machine.put(0x64, 0xa7);
    assert_eq!(machine.ask(0x20) & 0x20, 0x20);
    machine.put(0x64, 0xa8);
    assert_eq!(machine.ask(0x20) & 0x20, 0x00);
    // Is there a multiplexer? One would not return the last byte.
    for byte in [0xf0, 0x56, 0xa4] {
        machine.put(0x64, 0xd3);
        machine.put(0x60, byte);
        assert_eq!(machine.next(), (byte, true));
    }
    let control = control & !0x33 | 0x12;
    machine.control(control);
    machine.put(0x64, 0xd3);
    machine.put(0x60, 0xa5);
    assert!(machine.mouse_line.high());
    assert_eq!(machine.next(), (0xa5, true));
    machine.control(control & !0x30 | 0x03);

    keyboard(machine, 0xf2, &[0xfa, 0xab, 0x41]);
    for (command, option) in [(0xed, 0x00), (0xf3, 0x00)] {
        keyboard(machine, command, &[0xfa]);
        keyboard(machine, option, &[0xfa]);
    }
    keyboard(machine, 0xf4, &[0xfa]);

    mouse(machine, 0xf2, &[0xfa, 0x00]);
    mouse(machine, 0xf6, &[0xfa]);
    // Touch pads show themselves in the status after four resolutions. This is none.
    for _ in 0..4 {
        mouse(machine, 0xe8, &[0xfa]);
        mouse(machine, 0x00, &[0xfa]);
    }
    mouse(machine, 0xe9, &[0xfa, 0x00, 0x00, 100]);
    mouse(machine, 0xff, &[0xfa, 0xaa, 0x00]);
    for (rates, identity) in [([200, 100, 80], 3), ([200, 200, 80], 4)] {
        for rate in rates {
            mouse(machine, 0xf3, &[0xfa]);
            mouse(machine, rate, &[0xfa]);
        }
        mouse(machine, 0xf2, &[0xfa, identity]);
    }
    for byte in [0xf3, 100, 0xe8, 0x03, 0xe6, 0xf4] {
        mouse(machine, byte, &[0xfa]);
    }
}

fn works(machine: &Machine) {
    machine.press(0x1e);
    assert!(machine.keyboard_line.high());
    machine.release(0x1e);
    assert_eq!(machine.codes(), [0x1e, 0x9e]);
    machine.mouse.event(MouseEvent {
        dx: 1,
        dy: -1,
        wheel: 1,
        buttons: 1,
    });
    assert!(machine.mouse_line.high());
    assert_eq!(machine.packets(), [0x09, 1, 1, 1]);
    machine.mouse.event(MouseEvent::default());
    assert_eq!(machine.packets(), [0x08, 0, 0, 0]);
}

/// SeaBIOS, `src/hw/ps2port.c`.
fn seabios(machine: &Machine) {
    machine.drain();
    machine.put(0x64, 0xa7);
    machine.put(0x64, 0xad);
    assert_eq!(machine.drain(), []);
    assert_eq!(machine.ask(0xaa), 0x55);
    assert_eq!(machine.ask(0xab), 0x00);
    // Interrupts off and the mouse's port closed while the keyboard is spoken to.
    machine.control(0x60);
    keyboard(machine, 0xff, &[0xfa, 0xaa]);
    keyboard(machine, 0xf5, &[0xfa]);
    keyboard(machine, 0xf0, &[0xfa]);
    keyboard(machine, 0x02, &[0xfa]);
    machine.control(0x61);
    keyboard(machine, 0xf4, &[0xfa]);
    assert_eq!(machine.get(0x64) & 0x04, 0, "as the command byte says");
}

/// edk2, `MdeModulePkg/Bus/Isa/Ps2KeyboardDxe`.
fn edk2(machine: &Machine) {
    machine.put(0x64, 0xad);
    machine.put(0x64, 0xa7);
    machine.drain();
    assert_eq!(machine.ask(0xaa), 0x55);
    machine.control(0x67);
    assert_eq!(machine.ask(0xab), 0x00);
    machine.put(0x64, 0xae);
    keyboard(machine, 0xff, &[0xfa, 0xaa]);
    keyboard(machine, 0xed, &[0xfa]);
    keyboard(machine, 0x00, &[0xfa]);
    keyboard(machine, 0xf0, &[0xfa]);
    keyboard(machine, 0x02, &[0xfa]);
    keyboard(machine, 0xf4, &[0xfa]);
}

#[test]
fn linux_after_firmware() {
    for firmware in [seabios, edk2] {
        let machine = cold();
        firmware(&machine);
        machine.press(0x1c);
        machine.release(0x1c);
        assert_eq!(machine.codes(), [0x1c, 0x9c], "in the boot menu");
        // Somebody leans on the keyboard meanwhile.
        for _ in 0..100 {
            machine.press(0x39);
        }
        machine.release(0x39);
        linux(&machine);
        works(&machine);
    }
}

#[test]
fn linux_started_directly() {
    let machine = cold();
    machine.control(0x74);
    linux(&machine);
    works(&machine);
}

/// Windows, i8042prt and mouclass: the keyboard's commands are sent with the mouse reporting.
#[test]
fn devices_do_not_disturb_each_other() {
    let machine = cold();
    machine.control(0x47);
    machine.order_mouse(&[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf4]);
    machine.move_mouse(1, 1);
    machine.put(0x60, 0xed);
    machine.press(0x1e);
    machine.put(0x64, 0xd4);
    machine.put(0x60, 0xe9);
    let bytes = machine.drain();
    let of = |aux| {
        let bytes = bytes.iter().filter(|(_, other)| *other == aux);
        bytes.map(|(byte, _)| *byte).collect::<Vec<_>>()
    };
    assert_eq!(of(false), [0xfa, 0x1e]);
    // The answer comes after the byte that was in the buffer already.
    assert_eq!(of(true), [0x28, 0xfa, 0x20, 2, 80, 1, 0xff, 0]);
}
