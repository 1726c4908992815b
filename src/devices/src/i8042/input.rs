//! The host's side of keyboard and mouse: what a display hands on from its viewers.

use std::sync::{Arc, Mutex, MutexGuard};

use super::output::Devices;
use super::{I8042, Key, MouseEvent};

/// The keyboard's keys and lights. Clones share the keyboard.
#[derive(Clone)]
pub struct KeyboardHandle(Arc<Mutex<I8042>>);

/// The mouse. Clones share it.
#[derive(Clone)]
pub struct MouseHandle(Arc<Mutex<I8042>>);

impl KeyboardHandle {
    pub(super) fn new(i8042: Arc<Mutex<I8042>>) -> Self {
        Self(i8042)
    }

    /// A key goes down (again, when it repeats) or comes up. Tells whether the guest will hear
    /// of it: a keyboard that nobody reads overflows, as a real one does, and releases count
    /// only for keys that went down.
    pub fn key(&self, key: Key, pressed: bool) -> bool {
        change(&self.0, |devices| devices.keyboard.key(key, pressed)).unwrap_or(false)
    }

    /// Whether there is room for one more stroke. Who types faster than people, a text say, asks
    /// before each [`Stroke`](super::Stroke) and looks again a little later if there is none.
    pub fn ready(&self) -> bool {
        change(&self.0, |devices| devices.keyboard.ready()).unwrap_or(true)
    }

    /// Lets go of every key, as when a viewer leaves.
    pub fn release_all(&self) {
        change(&self.0, |devices| devices.keyboard.release_all());
    }

    /// The lights as the guest set them: bit 0 Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    pub fn leds(&self) -> u8 {
        change(&self.0, |devices| devices.keyboard.leds()).unwrap_or(0)
    }
}

impl MouseHandle {
    pub(super) fn new(i8042: Arc<Mutex<I8042>>) -> Self {
        Self(i8042)
    }

    /// The mouse moves, its wheel turns, its buttons change. What the guest has not read yet adds up.
    pub fn event(&self, event: MouseEvent) {
        change(&self.0, |devices| devices.mouse.event(event));
    }
}

/// Does something with the devices, and hands on what they have to send.
fn change<T>(i8042: &Mutex<I8042>, act: impl FnOnce(&mut Devices) -> T) -> Option<T> {
    let mut i8042: MutexGuard<I8042> = i8042.lock().unwrap();
    let result = i8042.registers.devices.as_mut().map(act);
    i8042.pump();
    result
}
