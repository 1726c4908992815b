//! A PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, "101- and 102-Key Keyboard").
//!
//! Its self test takes no time. Keys do not repeat by themselves: the viewer's own keyboard
//! does that, and each repetition arrives as one more press.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::key::Key;
use super::link::{ACKNOWLEDGE, Link, RESEND, SELF_TEST_PASSED};
use super::scancodes::{self, Modifiers};

/// Bytes of scan codes that wait to be taken. Linux reads 16 bytes to empty the controller, and
/// takes one that still has some for broken; the overrun mark and the byte in the controller
/// come on top.
const CODES: usize = 14;
/// Longest release sequence, that of Print Screen in set 2.
const LONGEST_RELEASE: usize = 6;
/// Most bytes that can ever wait: releases of keys known to be down are taken in any case, and
/// each may be followed by the mark of a press that was lost.
const MOST_CODES: usize = CODES + 1 + 256 * (LONGEST_RELEASE + 1);
/// What a whole stroke needs at most: Shift and key, down and up.
const STROKE: usize = 8;

/// Keys were lost.
const OVERRUN: u8 = 0x00;
const OVERRUN_SET1: u8 = 0xff;
/// An enhanced keyboard.
const IDENTITY: [u8; 2] = [0xab, 0x83];
/// From here on bytes are commands even where an option is expected.
const FIRST_COMMAND: u8 = 0xed;
/// 10.9 characters per second after half a second.
const TYPEMATIC_DEFAULT: u8 = 0x2b;

/// The keyboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyboard {
    link: Link,
    codes: VecDeque<u8>,
    /// The scan code set, 1 to 3.
    set: u8,
    scanning: bool,
    /// Kept for guests that ask nobody: nothing repeats here.
    typematic: u8,
    leds: u8,
    /// XT keycodes of the keys the guest takes for held.
    down: BTreeSet<u8>,
}

/// A byte on its way to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Answer(u8),
    Code(u8),
}

impl Keyboard {
    /// A keyboard after power-on.
    pub fn new() -> Self {
        Self {
            link: Link::default(),
            codes: VecDeque::new(),
            set: 2,
            scanning: true,
            typematic: TYPEMATIC_DEFAULT,
            leds: 0,
            down: BTreeSet::new(),
        }
    }

    /// The lights: bit 0 Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    pub fn leds(&self) -> u8 {
        self.leds
    }

    /// Whether there is room for a whole stroke, or nobody to listen to it.
    pub fn ready(&self) -> bool {
        !self.scanning || self.codes.len() + STROKE <= CODES
    }

    /// A key goes down, repeats, or comes up. Tells whether the guest will hear of it.
    pub fn key(&mut self, key: Key, pressed: bool) -> bool {
        let key = self.as_sent(key, pressed);
        // A press that was lost has no release.
        if !self.scanning || !pressed && !self.down.contains(&key.xt()) {
            return false;
        }
        let codes = scancodes::sequence(self.set, key, pressed, self.modifiers());
        if pressed && codes.is_empty() {
            return false;
        }
        // Only presses can be lost, else the guest would take keys for stuck.
        if pressed && self.codes.len() + codes.len() > CODES {
            self.overrun();
            return false;
        }
        self.codes.extend(codes);
        if pressed && key != Key::PAUSE {
            self.down.insert(key.xt());
        } else {
            self.down.remove(&key.xt());
        }
        true
    }

    /// Every key held comes up.
    pub fn release_all(&mut self) {
        for xt in self.down.clone() {
            if let Some(key) = Key::from_xt(xt.into()) {
                self.key(key, false);
            }
        }
    }

    /// The next byte for the controller. Answers go before scan codes.
    pub fn take(&mut self) -> Option<Sent> {
        if let Some(byte) = self.link.take_answer() {
            return Some(Sent::Answer(byte));
        }
        let byte = self.codes.pop_front()?;
        self.link.sent(byte);
        Some(Sent::Code(byte))
    }

    /// A byte from the controller.
    pub fn receive(&mut self, byte: u8) {
        if let Some(command) = self.link.pending.take()
            && byte < FIRST_COMMAND
        {
            self.option(command, byte);
            return;
        }
        match byte {
            // Lights, scan code set, repetition, and kinds of single keys in set 3.
            0xed | 0xf0 | 0xf3 | 0xfb..=0xfd => {
                self.link.pending = Some(byte);
                self.link.answer(&[ACKNOWLEDGE]);
            }
            0xee => self.link.answer(&[0xee]),
            0xf2 => {
                self.link.answer(&[ACKNOWLEDGE]);
                self.link.answer(&IDENTITY);
            }
            0xf4 => {
                self.codes.clear();
                self.scanning = true;
                self.link.answer(&[ACKNOWLEDGE]);
            }
            0xf5 | 0xf6 => {
                self.set_defaults();
                self.scanning = byte == 0xf6;
                self.link.answer(&[ACKNOWLEDGE]);
            }
            // Kinds of all keys in set 3. Whatever is asked for, every key tells when it is
            // pressed and released.
            0xf7..=0xfa => self.link.answer(&[ACKNOWLEDGE]),
            0xfe => self.link.repeat(),
            0xff => {
                *self = Self::new();
                self.link.answer(&[ACKNOWLEDGE, SELF_TEST_PASSED]);
            }
            _ => self.link.answer(&[RESEND]),
        }
    }

    fn option(&mut self, command: u8, value: u8) {
        match (command, value) {
            (0xed, _) => self.leds = value & 0x07,
            (0xf3, 0..=0x7f) => self.typematic = value,
            (0xf0, 0) => {
                self.link.answer(&[ACKNOWLEDGE, self.set]);
                return;
            }
            (0xf0, 1..=3) => {
                self.codes.clear();
                self.set = value;
            }
            // A list of keys, ended by the next command.
            (0xfb..=0xfd, _) => self.link.pending = Some(command),
            _ => {
                self.link.answer(&[RESEND]);
                return;
            }
        }
        self.link.answer(&[ACKNOWLEDGE]);
    }

    fn set_defaults(&mut self) {
        self.codes.clear();
        self.down.clear();
        self.set = 2;
        self.typematic = TYPEMATIC_DEFAULT;
    }

    fn overrun(&mut self) {
        let mark = if self.set == 1 { OVERRUN_SET1 } else { OVERRUN };
        if self.codes.back() != Some(&mark) {
            self.codes.push_back(mark);
        }
    }

    /// Print Screen is another key while Alt is held, and comes up as what it went down.
    fn as_sent(&self, key: Key, pressed: bool) -> Key {
        if key != Key::PRINT_SCREEN && key != Key::SYSTEM_REQUEST {
            return key;
        }
        let alternate = if pressed {
            self.holds(Key::LEFT_ALT) || self.holds(Key::RIGHT_ALT)
        } else {
            self.holds(Key::SYSTEM_REQUEST)
        };
        if alternate {
            Key::SYSTEM_REQUEST
        } else {
            Key::PRINT_SCREEN
        }
    }

    fn holds(&self, key: Key) -> bool {
        self.down.contains(&key.xt())
    }

    fn modifiers(&self) -> Modifiers {
        Modifiers {
            ctrl: self.holds(Key::LEFT_CTRL) || self.holds(Key::RIGHT_CTRL),
            shift: self.holds(Key::LEFT_SHIFT) || self.holds(Key::RIGHT_SHIFT),
        }
    }

    /// What is impossible about a saved keyboard.
    pub fn problem(&self) -> Option<&'static str> {
        if !(1..=3).contains(&self.set) {
            return Some("no such scan code set");
        }
        if self.codes.len() > MOST_CODES {
            return Some("too many scan codes");
        }
        self.link.problem()
    }
}
