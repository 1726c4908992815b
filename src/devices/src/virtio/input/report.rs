//! What happened to the tablet, and the events that tell of it.
//!
//! Types and codes are those of Linux (`include/uapi/linux/input-event-codes.h`), as the specification wants it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The right and the lower edge of the tablet.
pub const FARTHEST: u16 = 0x7fff;

/// Most reports that wait to be told; later ones join the last.
const WAITING: usize = 64;
/// Farthest turn that adds up in one report: nobody means more.
const FARTHEST_TURN: i32 = 127;

pub(super) const EV_SYN: u16 = 0;
pub(super) const EV_KEY: u16 = 1;
pub(super) const EV_REL: u16 = 2;
pub(super) const EV_ABS: u16 = 3;
pub(super) const ABS_X: u16 = 0;
pub(super) const ABS_Y: u16 = 1;
pub(super) const REL_WHEEL: u16 = 8;
/// `BTN_LEFT`, `BTN_RIGHT`, `BTN_MIDDLE`, `BTN_SIDE`, `BTN_EXTRA`, one after the other.
pub(super) const BTN_LEFT: u16 = 0x110;
/// How many buttons there are.
pub(super) const BUTTONS: u16 = 5;

/// Where the pointer is and what is pressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// From the left edge, 0, to the right, [`FARTHEST`].
    pub x: u16,
    /// From the upper edge, 0, to the lower, [`FARTHEST`].
    pub y: u16,
    /// Turns of the wheel away from the user since the last report: what scrolls up.
    pub wheel: i32,
    /// The buttons that are held, as those of a mouse, e.g. [`BUTTON_LEFT`](crate::i8042::BUTTON_LEFT).
    pub buttons: u8,
}

impl Report {
    /// What there can be.
    pub(super) fn possible(&self) -> bool {
        let turns = -FARTHEST_TURN..=FARTHEST_TURN;
        self.x <= FARTHEST
            && self.y <= FARTHEST
            && turns.contains(&self.wheel)
            && self.buttons >> BUTTONS == 0
    }

    fn clamped(self) -> Self {
        Self {
            x: self.x.min(FARTHEST),
            y: self.y.min(FARTHEST),
            wheel: self.wheel.clamp(-FARTHEST_TURN, FARTHEST_TURN),
            buttons: self.buttons & ((1 << BUTTONS) - 1),
        }
    }

    /// Takes over from an earlier report that was not told.
    fn join(&mut self, later: Self) {
        let wheel = self.wheel + later.wheel;
        *self = Self { wheel, ..later }.clamped();
    }
}

/// An event (virtio 1.2, 5.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub kind: u16,
    pub code: u16,
    pub value: u32,
}

impl Event {
    fn new(kind: u16, code: u16, value: impl Into<u32>) -> Self {
        let value = value.into();
        Self { kind, code, value }
    }

    /// `struct virtio_input_event`.
    pub fn to_bytes(self) -> [u8; 8] {
        let [k0, k1] = self.kind.to_le_bytes();
        let [c0, c1] = self.code.to_le_bytes();
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [k0, k1, c0, c1, v0, v1, v2, v3]
    }
}

/// Reports on their way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reports {
    /// There is a driver, at rest perhaps.
    pub driven: bool,
    /// What the driver was told so far; its wheel is 0.
    pub told: Report,
    pub waiting: VecDeque<Report>,
}

impl Reports {
    /// Adds a report.
    pub fn add(&mut self, report: Report) {
        let report = report.clamped();
        let full = self.waiting.len() >= WAITING;
        match self.waiting.back_mut() {
            Some(last) if full || last.buttons == report.buttons => last.join(report),
            None if report == self.told => {}
            _ => self.waiting.push_back(report),
        }
    }

    /// Whether there is something to tell.
    pub fn waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next event: what of the first report was not told yet, and after all of it the end of the report.
    pub fn next(&mut self) -> Option<Event> {
        let report = self.waiting.front_mut()?;
        let told = &mut self.told;
        if told.x != report.x {
            told.x = report.x;
            return Some(Event::new(EV_ABS, ABS_X, told.x));
        }
        if told.y != report.y {
            told.y = report.y;
            return Some(Event::new(EV_ABS, ABS_Y, told.y));
        }
        let changed = told.buttons ^ report.buttons;
        if changed != 0 {
            let button = changed.trailing_zeros() as u16;
            told.buttons ^= 1 << button;
            let pressed = told.buttons >> button & 1;
            return Some(Event::new(EV_KEY, BTN_LEFT + button, pressed));
        }
        if report.wheel != 0 {
            let turn = std::mem::take(&mut report.wheel);
            return Some(Event::new(EV_REL, REL_WHEEL, turn.cast_unsigned()));
        }
        self.waiting.pop_front();
        Some(Event::new(EV_SYN, 0, 0_u32))
    }

    /// What is impossible about saved reports.
    pub fn problem(&self) -> Option<&'static str> {
        if self.waiting.len() > WAITING {
            return Some("too many reports");
        }
        let possible = self.waiting.iter().all(Report::possible);
        (!possible || !self.told.possible() || self.told.wheel != 0)
            .then_some("a report that cannot be")
    }
}
