//! What a mouse has to tell and has not told yet: steps of motion that add up.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Left button.
pub const BUTTON_LEFT: u8 = 1 << 0;
/// Right button.
pub const BUTTON_RIGHT: u8 = 1 << 1;
/// Middle button, or the wheel pressed.
pub const BUTTON_MIDDLE: u8 = 1 << 2;
/// First button at the side, "back".
pub const BUTTON_BACK: u8 = 1 << 3;
/// Second button at the side, "forward".
pub const BUTTON_FORWARD: u8 = 1 << 4;

pub(super) const ALL_BUTTONS: u8 = 0x1f;

/// Most steps that wait to be sent; later ones join the last.
const STEPS: usize = 8;
/// Farthest way and turn that add up in one step: nobody means more.
const FARTHEST: i32 = 1 << 13;
const FARTHEST_TURN: i32 = 1 << 7;
/// What the wheel's half byte holds.
const TURN: RangeInclusive<i32> = -8..=7;

/// What happened to the mouse since the last time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MouseEvent {
    /// Way to the right, in counts.
    pub dx: i32,
    /// Way down the screen, in counts.
    pub dy: i32,
    /// Turns of the wheel towards the user: what scrolls down.
    pub wheel: i32,
    /// The buttons that are held, e.g. [`BUTTON_LEFT`].
    pub buttons: u8,
}

impl MouseEvent {
    /// A mouse at rest.
    pub(super) fn resting(buttons: u8) -> Self {
        Self {
            buttons,
            ..Self::default()
        }
    }

    pub(super) fn moves(&self) -> bool {
        (self.dx, self.dy, self.wheel) != (0, 0, 0)
    }

    /// Adds a later event.
    fn join(&mut self, later: Self) {
        let add = |a: i32, b: i32, most: i32| a.saturating_add(b).clamp(-most, most);
        self.dx = add(self.dx, later.dx, FARTHEST);
        self.dy = add(self.dy, later.dy, FARTHEST);
        self.wheel = add(self.wheel, later.wheel, FARTHEST_TURN);
        self.buttons = later.buttons;
    }

    /// Takes off what one packet holds.
    fn split(&mut self, way: i32) -> Self {
        Self {
            dx: take(&mut self.dx, -way..=way),
            dy: take(&mut self.dy, -way..=way),
            wheel: take(&mut self.wheel, TURN),
            buttons: self.buttons,
        }
    }

    fn is_sane(&self) -> bool {
        let bounds = [
            (self.dx, FARTHEST),
            (self.dy, FARTHEST),
            (self.wheel, FARTHEST_TURN),
        ];
        let bounded = |(way, most): (i32, i32)| (-most..=most).contains(&way);
        bounds.into_iter().all(bounded) && self.buttons <= ALL_BUTTONS
    }
}

fn take(way: &mut i32, range: RangeInclusive<i32>) -> i32 {
    let taken = (*way).clamp(*range.start(), *range.end());
    *way -= taken;
    taken
}

/// The steps that wait, oldest first. Motion with the same buttons held is one step, so that
/// no click is lost to motion.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Steps(VecDeque<MouseEvent>);

impl Steps {
    pub fn add(&mut self, event: MouseEvent) {
        let full = self.0.len() >= STEPS;
        match self.0.back_mut() {
            Some(last) if full || last.buttons == event.buttons => last.join(event),
            _ => {
                let mut step = MouseEvent::default();
                step.join(event);
                self.0.push_back(step);
            }
        }
    }

    /// Takes as much of the oldest step as a packet holds that goes `way` far.
    pub fn take(&mut self, way: i32) -> Option<MouseEvent> {
        let oldest = self.0.front_mut()?;
        let piece = oldest.split(way);
        if !oldest.moves() {
            self.0.pop_front();
        }
        Some(piece)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether saved steps can be.
    pub fn are_sane(&self) -> bool {
        self.0.len() <= STEPS && self.0.iter().all(MouseEvent::is_sane)
    }
}
