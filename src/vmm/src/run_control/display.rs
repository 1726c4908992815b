//! Requests about the guest's screen and keyboard.

use std::fs::File;
use std::os::fd::OwnedFd;

use lodge_devices::i8042::{BUTTON_LEFT, BUTTON_MIDDLE, BUTTON_RIGHT, Key, Stroke};
use lodge_vmm_proto::{
    Answer, ErrorCode, KeyEvent, MAX_KEYS, MAX_TEXT, MAX_VIEWER_NAME, PointerButton,
};

use super::{RunControl, error};
use crate::machine::{Display, PointError, ScreenError};
use crate::viewers::ViewerError;

impl RunControl {
    /// Writes the picture into the file that came along.
    pub(super) fn screen(&self, fds: Vec<OwnedFd>) -> Answer {
        let Ok([file]) = <[OwnedFd; 1]>::try_from(fds) else {
            return bad("screen takes exactly one descriptor".to_owned());
        };
        self.with_display(|display| match display.write_screen(&File::from(file)) {
            Ok((width, height)) => Answer::Screen { width, height },
            Err(nothing @ ScreenError::Nothing) => {
                error(ErrorCode::WrongState, nothing.to_string())
            }
            Err(failed @ ScreenError::Write(_)) => error(ErrorCode::Internal, failed.to_string()),
        })
    }

    /// Shows the screen to whoever has the other end of the socket that came along.
    pub(super) fn attach_viewer(&self, name: &str, fds: Vec<OwnedFd>) -> Answer {
        let Ok([socket]) = <[OwnedFd; 1]>::try_from(fds) else {
            return bad("attach_viewer takes exactly one descriptor".to_owned());
        };
        if name.len() > MAX_VIEWER_NAME {
            return bad(format!("name: at most {MAX_VIEWER_NAME} bytes"));
        }
        self.with_display(|display| match display.viewers().attach(socket, name) {
            Ok(()) => Answer::Done,
            Err(busy @ ViewerError::Busy) => error(ErrorCode::Busy, busy.to_string()),
            Err(failed @ ViewerError::Socket(_)) => bad(failed.to_string()),
        })
    }

    /// Moves the pointer, and clicks.
    pub(super) fn point(&self, x: u32, y: u32, click: Option<PointerButton>) -> Answer {
        let button = click.map_or(0, |button| match button {
            PointerButton::Left => BUTTON_LEFT,
            PointerButton::Middle => BUTTON_MIDDLE,
            PointerButton::Right => BUTTON_RIGHT,
        });
        self.with_display(|display| match display.point(x, y, button) {
            Ok((width, height)) => Answer::Screen { width, height },
            Err(refused @ (PointError::Nothing | PointError::NoDriver)) => {
                error(ErrorCode::WrongState, refused.to_string())
            }
        })
    }

    /// Presses and releases keys.
    pub(super) fn keys(&self, events: &[KeyEvent]) -> Answer {
        if events.len() > MAX_KEYS {
            return bad(format!("keys: at most {MAX_KEYS} at a time"));
        }
        let events = events.iter().enumerate().map(|(number, event)| {
            let key = Key::from_xt(event.key);
            let key = key.ok_or_else(|| {
                format!("keys.{number}.key: no key has the number {:#x}", event.key)
            })?;
            Ok((key, event.pressed))
        });
        match events.collect::<Result<Vec<_>, String>>() {
            Ok(events) => self.with_display(|display| typed(display.press(&events))),
            Err(message) => bad(message),
        }
    }

    /// Types characters.
    pub(super) fn text(&self, text: &str) -> Answer {
        let strokes = text.chars().take(MAX_TEXT + 1).map(|character| {
            Stroke::of_char(character)
                .ok_or_else(|| format!("text: no key of the US layout gives {character:?}"))
        });
        match strokes.collect::<Result<Vec<_>, String>>() {
            Ok(strokes) if strokes.len() > MAX_TEXT => {
                bad(format!("text: at most {MAX_TEXT} characters at a time"))
            }
            Ok(strokes) => self.with_display(|display| typed(display.strike(&strokes))),
            Err(message) => bad(message),
        }
    }

    fn with_display(&self, act: impl FnOnce(&Display) -> Answer) -> Answer {
        match self.machine.display() {
            Some(display) => act(display),
            None => {
                let message =
                    "the guest has neither screen nor keyboard: it starts without firmware";
                error(ErrorCode::WrongState, message.to_owned())
            }
        }
    }
}

fn typed(count: usize) -> Answer {
    // The requests are bounded far below.
    let accepted = u32::try_from(count).unwrap_or(u32::MAX);
    Answer::Typed { accepted }
}

fn bad(message: String) -> Answer {
    error(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_may_hold_has_a_key() {
        let characters = (0..=0x10ffff).filter_map(char::from_u32);
        for character in characters.filter(|character| lodge_vmm_proto::typeable(*character)) {
            assert!(Stroke::of_char(character).is_some(), "{character:?}");
        }
    }
}
