//! A PS/2 mouse that becomes an IntelliMouse when asked.
//!
//! Sources: IBM PS/2 Hardware Interface Technical Reference, "Mouse", and Microsoft's "IntelliMouse
//! and IntelliMouse Explorer" notes: a driver that sets the sample rates 200, 100, 80 in a
//! row gets a wheel (identity 3), one that sets 200, 200, 80 two more buttons as well (4).
//!
//! Motion is not sent at the sample rate but when the guest has read what came before; until
//! then it adds up, so a guest that reads slowly sees fewer, longer steps.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::link::{ACKNOWLEDGE, Link, RESEND, SELF_TEST_PASSED};
use super::motion::{
    ALL_BUTTONS, BUTTON_BACK, BUTTON_FORWARD, BUTTON_LEFT, BUTTON_MIDDLE, BUTTON_RIGHT, MouseEvent,
    Steps,
};

const STANDARD_BUTTONS: u8 = BUTTON_LEFT | BUTTON_RIGHT | BUTTON_MIDDLE;
const SIDE_BUTTONS: u8 = BUTTON_BACK | BUTTON_FORWARD;
/// Bytes of a packet with a wheel.
const PACKET: usize = 4;
/// Farthest way in one packet, nine bits with the sign, and half of it where it is doubled.
const FARTHEST: i32 = 255;
const FARTHEST_SCALED: i32 = 127;

/// From here on bytes are commands even where an option is expected.
const FIRST_COMMAND: u8 = 0xe6;
const SET_RESOLUTION: u8 = 0xe8;
const SET_RATE: u8 = 0xf3;

const PLAIN: u8 = 0;
const WHEEL: u8 = 3;
const FIVE_BUTTONS: u8 = 4;
/// 4 counts per millimetre, 100 samples per second.
const RESOLUTION_DEFAULT: u8 = 2;
const RATE_DEFAULT: u8 = 100;

/// The mouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mouse {
    link: Link,
    /// 0, 3 or 4.
    identity: u8,
    /// The last sample rates set in a row, oldest first.
    knock: [u8; 3],
    rate: u8,
    resolution: u8,
    /// Scaling 2:1.
    scaling: bool,
    /// Tells of motion only when asked.
    remote: bool,
    /// Returns every byte it is sent.
    wrap: bool,
    reporting: bool,
    /// Buttons as the host sees them.
    buttons: u8,
    steps: Steps,
    /// What is left of the packet on the line.
    packet: VecDeque<u8>,
}

impl Mouse {
    /// A mouse after power-on.
    pub fn new() -> Self {
        Self {
            link: Link::default(),
            identity: PLAIN,
            knock: [0; 3],
            rate: RATE_DEFAULT,
            resolution: RESOLUTION_DEFAULT,
            scaling: false,
            remote: false,
            wrap: false,
            reporting: false,
            buttons: 0,
            steps: Steps::default(),
            packet: VecDeque::new(),
        }
    }

    /// Moves, turns, presses.
    pub fn event(&mut self, mut event: MouseEvent) {
        event.buttons &= match self.identity {
            FIVE_BUTTONS => ALL_BUTTONS,
            _ => STANDARD_BUTTONS,
        };
        if self.identity == PLAIN {
            event.wheel = 0;
        }
        let pressed = event.buttons != std::mem::replace(&mut self.buttons, event.buttons);
        let listening = self.reporting || self.remote;
        if listening && (pressed || event.moves()) {
            self.steps.add(event);
        }
    }

    /// The next byte for the controller. Answers go before packets.
    pub fn take(&mut self) -> Option<u8> {
        if let Some(byte) = self.link.take_answer() {
            return Some(byte);
        }
        if self.packet.is_empty() && self.reporting && !self.remote && !self.wrap {
            let way = if self.scaling {
                FARTHEST_SCALED
            } else {
                FARTHEST
            };
            let mut step = self.steps.take(way)?;
            if self.scaling {
                (step.dx, step.dy) = (double(step.dx), double(step.dy));
            }
            self.packet = self.packet_of(step).into();
        }
        let byte = self.packet.pop_front()?;
        self.link.sent(byte);
        Some(byte)
    }

    /// A byte from the controller.
    pub fn receive(&mut self, byte: u8) {
        if self.wrap && !matches!(byte, 0xec | 0xff) {
            self.link.answer(&[byte]);
            return;
        }
        if let Some(command) = self.link.pending.take()
            && byte < FIRST_COMMAND
        {
            self.option(command, byte);
            return;
        }
        if byte != SET_RATE {
            self.knock = [0; 3];
        }
        self.command(byte);
    }

    fn command(&mut self, command: u8) {
        match command {
            0xe6 | 0xe7 => self.scaling = command == 0xe7,
            SET_RESOLUTION | SET_RATE => self.link.pending = Some(command),
            0xe9 => {
                let status = self.status();
                return self.link.answer(&status);
            }
            0xea | 0xf0 => {
                self.remote = command == 0xf0;
                self.forget_motion();
            }
            0xeb => {
                let resting = MouseEvent::resting(self.buttons);
                let step = self.steps.take(FARTHEST).unwrap_or(resting);
                let packet = self.packet_of(step);
                self.link.answer(&[ACKNOWLEDGE]);
                return self.link.answer(&packet);
            }
            0xec => self.wrap = false,
            0xee => {
                self.wrap = true;
                self.forget_motion();
            }
            0xf2 => return self.link.answer(&[ACKNOWLEDGE, self.identity]),
            0xf4 | 0xf5 => {
                self.reporting = command == 0xf4;
                self.forget_motion();
            }
            0xf6 => *self = self.with_defaults(),
            0xfe => return self.link.repeat(),
            0xff => {
                *self = Self {
                    buttons: self.buttons,
                    ..Self::new()
                };
                return self.link.answer(&[ACKNOWLEDGE, SELF_TEST_PASSED, PLAIN]);
            }
            _ => return self.link.answer(&[RESEND]),
        }
        self.link.answer(&[ACKNOWLEDGE]);
    }

    /// The defaults leave the mouse the kind it has become.
    fn with_defaults(&self) -> Self {
        Self {
            link: self.link.clone(),
            identity: self.identity,
            buttons: self.buttons,
            ..Self::new()
        }
    }

    fn option(&mut self, command: u8, value: u8) {
        match (command, value) {
            // Any rate will do, as nothing is sampled.
            (SET_RATE, _) => {
                self.rate = value;
                self.knock = [self.knock[1], self.knock[2], value];
                match self.knock {
                    [200, 100, 80] => self.identity = WHEEL,
                    [200, 200, 80] => self.identity = FIVE_BUTTONS,
                    _ => {}
                }
            }
            (_, 0..=3) => self.resolution = value,
            _ => return self.link.answer(&[RESEND]),
        }
        self.link.answer(&[ACKNOWLEDGE]);
    }

    fn status(&self) -> [u8; 4] {
        let held = |button, bit: u8| if self.buttons & button != 0 { bit } else { 0 };
        let flags = u8::from(self.remote) << 6
            | u8::from(self.reporting) << 5
            | u8::from(self.scaling) << 4
            | held(BUTTON_LEFT, 1 << 2)
            | held(BUTTON_MIDDLE, 1 << 1)
            | held(BUTTON_RIGHT, 1 << 0);
        [ACKNOWLEDGE, flags, self.resolution, self.rate]
    }

    fn forget_motion(&mut self) {
        self.steps.clear();
        self.packet.clear();
    }

    fn packet_of(&self, step: MouseEvent) -> Vec<u8> {
        // The mouse counts upwards.
        let (dx, dy) = (step.dx, -step.dy);
        let signs = u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        let first = step.buttons & STANDARD_BUTTONS | 1 << 3 | signs;
        let mut packet = vec![first, dx as u8, dy as u8];
        let wheel = step.wheel as u8;
        match self.identity {
            WHEEL => packet.push(wheel),
            FIVE_BUTTONS => packet.push(wheel & 0x0f | (step.buttons & SIDE_BUTTONS) << 1),
            _ => {}
        }
        packet
    }

    /// What is impossible about a saved mouse.
    pub fn problem(&self) -> Option<&'static str> {
        if !matches!(self.identity, PLAIN | WHEEL | FIVE_BUTTONS) {
            return Some("no such mouse");
        }
        if !self.steps.are_sane() {
            return Some("mouse motion out of bounds");
        }
        if self.packet.len() > PACKET {
            return Some("too long a mouse packet");
        }
        self.link.problem()
    }
}

/// Scaling 2:1, which leaves slow motion fine.
fn double(way: i32) -> i32 {
    let fast = match way.abs() {
        0 => 0,
        1 | 2 => 1,
        3 => 3,
        4 => 6,
        5 => 9,
        way => way * 2,
    };
    fast * way.signum()
}
