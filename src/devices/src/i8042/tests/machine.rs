//! A controller with devices, and a guest's ways to use it.

use std::sync::{Arc, Mutex};

use crate::bus::BusDevice;
use crate::i8042::{I8042, I8042_PORTS, Key, KeyboardHandle, MouseEvent, MouseHandle};
use crate::test_machine::{TestLine, TestPower};

pub struct Machine {
    pub i8042: Arc<Mutex<I8042>>,
    pub keyboard: KeyboardHandle,
    pub mouse: MouseHandle,
    pub keyboard_line: Arc<TestLine>,
    pub mouse_line: Arc<TestLine>,
}

/// No bytes at all.
pub const NOTHING: [u8; 0] = [];

/// As after power-on.
pub fn cold() -> Machine {
    let (keyboard_line, mouse_line) = (TestLine::new(), TestLine::new());
    let (i8042, keyboard, mouse) =
        I8042::with_devices(TestPower::new(), keyboard_line.clone(), mouse_line.clone());
    Machine {
        i8042,
        keyboard,
        mouse,
        keyboard_line,
        mouse_line,
    }
}

/// With both ports open, both interrupts on and no translation.
pub fn raw() -> Machine {
    let machine = cold();
    machine.control(0x07);
    machine
}

/// The same with translation, as a PC's firmware leaves it.
pub fn translated() -> Machine {
    let machine = cold();
    machine.control(0x47);
    machine
}

impl Machine {
    pub fn get(&self, port: u64) -> u8 {
        let mut data = [0];
        let mut i8042 = self.i8042.lock().unwrap();
        i8042.read(port - I8042_PORTS, &mut data);
        data[0]
    }

    pub fn put(&self, port: u64, value: u8) {
        self.i8042
            .lock()
            .unwrap()
            .write(port - I8042_PORTS, &[value]);
    }

    /// Writes the command byte.
    pub fn control(&self, value: u8) {
        self.put(0x64, 0x60);
        self.put(0x60, value);
    }

    /// The next byte, which must be there, and whether it is the mouse's.
    pub fn next(&self) -> (u8, bool) {
        let status = self.get(0x64);
        assert_eq!(status & 1, 1, "nothing to read");
        (self.get(0x60), status & 0x20 != 0)
    }

    /// Everything there is to read.
    pub fn drain(&self) -> Vec<(u8, bool)> {
        let full = || self.get(0x64) & 1 != 0;
        std::iter::from_fn(|| full().then(|| self.next())).collect()
    }

    /// Everything there is to read from the keyboard, and nothing from the mouse.
    pub fn codes(&self) -> Vec<u8> {
        let bytes = self.drain();
        assert!(bytes.iter().all(|(_, aux)| !aux), "{bytes:x?}");
        bytes.into_iter().map(|(byte, _)| byte).collect()
    }

    /// Everything there is to read from the mouse, and nothing from the keyboard.
    pub fn packets(&self) -> Vec<u8> {
        let bytes = self.drain();
        assert!(bytes.iter().all(|(_, aux)| *aux), "{bytes:x?}");
        bytes.into_iter().map(|(byte, _)| byte).collect()
    }

    /// What the controller answers to a command.
    pub fn ask(&self, command: u8) -> u8 {
        self.put(0x64, command);
        let (byte, aux) = self.next();
        assert!(!aux);
        byte
    }

    /// What the keyboard says to a byte.
    pub fn tell_keyboard(&self, byte: u8) -> Vec<u8> {
        self.put(0x60, byte);
        self.codes()
    }

    /// What the mouse says to a byte.
    pub fn tell_mouse(&self, byte: u8) -> Vec<u8> {
        self.put(0x64, 0xd4);
        self.put(0x60, byte);
        self.packets()
    }

    /// Sends bytes to the mouse, each of which it must acknowledge.
    pub fn order_mouse(&self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(self.tell_mouse(*byte), [0xfa], "byte {byte:#x}");
        }
    }

    pub fn press(&self, xt: u32) -> bool {
        self.keyboard.key(Key::from_xt(xt).unwrap(), true)
    }

    pub fn release(&self, xt: u32) -> bool {
        self.keyboard.key(Key::from_xt(xt).unwrap(), false)
    }

    pub fn move_mouse(&self, dx: i32, dy: i32) {
        self.mouse.event(MouseEvent {
            dx,
            dy,
            ..MouseEvent::default()
        });
    }
}
