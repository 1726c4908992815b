//! Messages of viewers (RFC 6143, 7.5), one after the other off the front of what has arrived.

use crate::area::Area;
use crate::format::{FORMAT_BYTES, PixelFormat};

/// Most encodings that a viewer lists. Those in use have about thirty.
const MAX_ENCODINGS: u16 = 1024;

/// Longest clipboard that is skipped, in bytes.
const MAX_CUT_TEXT: u32 = 16 << 20;

const SET_PIXEL_FORMAT: u8 = 0;
const SET_ENCODINGS: u8 = 2;
const UPDATE_REQUEST: u8 = 3;
const KEY_EVENT: u8 = 4;
const POINTER_EVENT: u8 = 5;
const CUT_TEXT: u8 = 6;
/// QEMU's own, of which there are several.
const QEMU: u8 = 255;
const QEMU_KEY_EVENT: u8 = 0;

/// A viewer that breaks the protocol, or speaks a part of it that is not offered. The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It does not begin as RFB does.
    #[error("no version of RFB")]
    Version,
    /// It chose something else than no security.
    #[error("security type {0} was not offered")]
    Security(u8),
    /// Pixels that cannot be.
    #[error("pixel format: {0}")]
    Format(&'static str),
    /// A list longer than any viewer has.
    #[error("{0} encodings")]
    Encodings(u16),
    /// A clipboard larger than anybody fills it.
    #[error("{0} bytes of clipboard")]
    CutText(u32),
    /// A message of unknown length, with which all that follows is lost.
    #[error("unknown message {0}")]
    Message(u8),
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    SetPixelFormat(PixelFormat),
    SetEncodings(Vec<i32>),
    UpdateRequest {
        incremental: bool,
        area: Area,
    },
    Key {
        keysym: u32,
        pressed: bool,
    },
    Keycode {
        code: u32,
        pressed: bool,
    },
    Pointer {
        x: u16,
        y: u16,
        buttons: u8,
    },
    /// So many bytes of text follow.
    CutText(u32),
}

/// The first message in `bytes`, and its length; `None` when some of it is still to come.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, Violation> {
    let mut fields = Fields { bytes, taken: 0 };
    let message = fields.message();
    Ok(message.transpose()?.map(|message| (message, fields.taken)))
}

/// Fields in order, big endian. None is there before all of it has arrived.
struct Fields<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let field = self.bytes.get(self.taken..)?.first_chunk()?;
        self.taken += N;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn word(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn long(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn message(&mut self) -> Option<Result<Message, Violation>> {
        let message = match self.byte()? {
            SET_PIXEL_FORMAT => {
                let [_, _, _] = self.take()?;
                let format: [u8; FORMAT_BYTES] = self.take()?;
                return Some(PixelFormat::parse(&format).map(Message::SetPixelFormat));
            }
            SET_ENCODINGS => {
                let _ = self.byte()?;
                let count = self.word()?;
                if count > MAX_ENCODINGS {
                    return Some(Err(Violation::Encodings(count)));
                }
                let encodings = (0..count).map(|_| self.take().map(i32::from_be_bytes));
                Message::SetEncodings(encodings.collect::<Option<_>>()?)
            }
            UPDATE_REQUEST => {
                let incremental = self.byte()? != 0;
                let [x, y, width, height] =
                    [self.word()?, self.word()?, self.word()?, self.word()?];
                let area = Area::new(x, y, width, height);
                Message::UpdateRequest { incremental, area }
            }
            KEY_EVENT => {
                let pressed = self.byte()? != 0;
                let [_, _] = self.take()?;
                let keysym = self.long()?;
                Message::Key { keysym, pressed }
            }
            POINTER_EVENT => {
                let buttons = self.byte()?;
                let (x, y) = (self.word()?, self.word()?);
                Message::Pointer { x, y, buttons }
            }
            CUT_TEXT => {
                let [_, _, _] = self.take()?;
                match self.long()? {
                    length @ 0..=MAX_CUT_TEXT => Message::CutText(length),
                    length => return Some(Err(Violation::CutText(length))),
                }
            }
            QEMU => {
                let (QEMU_KEY_EVENT, pressed) = (self.byte()?, self.word()? != 0) else {
                    return Some(Err(Violation::Message(QEMU)));
                };
                let (_keysym, code) = (self.long()?, self.long()?);
                Message::Keycode { code, pressed }
            }
            other => return Some(Err(Violation::Message(other))),
        };
        Some(Ok(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: [&[u8]; 7] = [
        &[
            0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0,
        ],
        &[2, 0, 0, 2, 0, 0, 0, 16, 0xff, 0xff, 0xff, 0x21],
        &[3, 1, 0, 1, 0, 2, 0, 3, 0, 4],
        &[4, 1, 0, 0, 0, 0, 0xff, 0x0d],
        &[5, 4, 1, 0, 2, 0],
        &[6, 0, 0, 0, 1, 0, 0, 0],
        &[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1e],
    ];

    #[test]
    fn messages_are_understood() {
        let area = Area::new(1, 2, 3, 4);
        let expected = [
            Message::SetPixelFormat(PixelFormat::NATIVE),
            Message::SetEncodings(vec![16, -223]),
            Message::UpdateRequest {
                incremental: true,
                area,
            },
            Message::Key {
                keysym: 0xff0d,
                pressed: true,
            },
            Message::Pointer {
                x: 256,
                y: 512,
                buttons: 4,
            },
            Message::CutText(1 << 24),
            Message::Keycode {
                code: 0x1e,
                pressed: true,
            },
        ];
        for (bytes, message) in MESSAGES.iter().zip(expected) {
            // What follows is another message.
            let more = [bytes, &[9][..]].concat();
            assert_eq!(parse(&more), Ok(Some((message, bytes.len()))));
        }
    }

    #[test]
    fn a_part_of_a_message_waits_for_the_rest() {
        for bytes in MESSAGES {
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length]), Ok(None), "{length} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_nobody_means_is_refused() {
        for (bytes, violation) in [
            (&[1, 0, 0][..], Violation::Message(1)),
            (&[248], Violation::Message(248)),
            (&[255, 1, 0, 0], Violation::Message(255)),
            (&[2, 0, 4, 1], Violation::Encodings(1025)),
            (&[2, 0, 255, 255], Violation::Encodings(65535)),
            (&[6, 0, 0, 0, 1, 0, 0, 1], Violation::CutText((1 << 24) + 1)),
            (
                &[6, 0, 0, 0, 255, 255, 255, 255],
                Violation::CutText(u32::MAX),
            ),
        ] {
            assert_eq!(parse(bytes), Err(violation));
        }
    }
}
