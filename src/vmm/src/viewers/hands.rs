//! What viewers do, as the guest's keyboard and pointer do it.

use std::collections::BTreeSet;

use lodge_devices::i8042::{Key, KeyboardHandle, Stroke};
use lodge_rfb::Input;

use super::Pointer;

const SHIFTS: [Key; 2] = [Key::LEFT_SHIFT, Key::RIGHT_SHIFT];

/// One viewer's hands on keyboard and pointer. A clone is another viewer's. Dropped, they let go of everything they hold.
pub struct Hands {
    keyboard: KeyboardHandle,
    pointer: Pointer,
    held: BTreeSet<Key>,
}

impl Hands {
    /// Hands that hold nothing.
    pub fn new(keyboard: KeyboardHandle, pointer: Pointer) -> Self {
        Self {
            keyboard,
            pointer,
            held: BTreeSet::new(),
        }
    }

    /// Does what the viewer does. What no PC keyboard has is left out.
    pub fn act(&mut self, input: Input) {
        match input {
            Input::Alone => {}
            Input::Keycode { code, pressed } => {
                if let Some(key) = Key::from_xt(code) {
                    self.turn(key, pressed);
                }
            }
            Input::Key { keysym, pressed } => {
                if let Some(stroke) = Stroke::of_keysym(keysym) {
                    self.strike(stroke, pressed);
                }
            }
            Input::Pointer {
                x,
                y,
                size,
                buttons,
            } => self.pointer.act((x, y), size, buttons),
        }
    }

    /// A key for what it means. Where the viewer's layout and the US layout disagree about Shift, the guest sees Shift as
    /// the US layout wants it, for this key.
    fn strike(&mut self, stroke: Stroke, pressed: bool) {
        let holding = SHIFTS.map(|shift| self.held.contains(&shift));
        let shifted = holding != [false; 2];
        match stroke.shift {
            Some(shift) if pressed && shift && !shifted => {
                self.keyboard.key(Key::LEFT_SHIFT, true);
                self.turn(stroke.key, true);
                self.keyboard.key(Key::LEFT_SHIFT, false);
            }
            Some(shift) if pressed && !shift && shifted => {
                let held = || SHIFTS.iter().zip(holding).filter(|(_, held)| *held);
                for (key, _) in held() {
                    self.keyboard.key(*key, false);
                }
                self.turn(stroke.key, true);
                for (key, _) in held() {
                    self.keyboard.key(*key, true);
                }
            }
            _ => self.turn(stroke.key, pressed),
        }
    }

    fn turn(&mut self, key: Key, pressed: bool) {
        self.keyboard.key(key, pressed);
        if pressed {
            self.held.insert(key);
        } else {
            self.held.remove(&key);
        }
    }
}

impl Clone for Hands {
    fn clone(&self) -> Self {
        Self::new(self.keyboard.clone(), self.pointer.clone())
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        for key in &self.held {
            self.keyboard.key(*key, false);
        }
    }
}
