//! What a VNC viewer says to the server of a guest's screen.

use lodge_rfb::{Input as Heard, Picture, Session};

use crate::input::Input;

/// Most steps of one input.
const MOST: usize = 128;

/// Rows of a rectangle (tiles side by side), and bytes of its pixels at most.
const TILE: usize = 64;
const PIXEL: usize = 4;
/// More than there is beside the pixels of one rectangle: greeting, headers, what compression may add.
const BESIDE: usize = 4096;

/// A screen of any size in which no two rows are the same.
#[derive(Clone, Copy)]
struct Screen {
    size: (u16, u16),
    seed: u32,
}

impl Picture for Screen {
    fn size(&self) -> (u16, u16) {
        self.size
    }

    fn row(&self, y: u16, pixels: &mut Vec<u32>) {
        for x in 0..u32::from(self.size.0) {
            let mixed = (x / 3 + u32::from(y) * 7).wrapping_mul(self.seed | 1);
            pixels.push(mixed >> 8);
        }
    }
}

/// A viewer's session, with a screen that changes and is looked at in between.
///
/// # Panics
/// When a session says something that cannot be, or has more for its viewer than it should.
pub fn viewer(data: &[u8]) {
    let mut session = Session::new("fuzzed");
    let mut input = Input::new(data);
    let mut widest = 0;
    for _ in 0..MOST {
        let Some(step) = input.u8() else {
            return;
        };
        match step % 4 {
            0 | 1 => {
                let Some(bytes) = input.counted() else {
                    return;
                };
                if session.receive(bytes, hear).is_err() {
                    return;
                }
            }
            2 => {
                let (Some(width), Some(height)) = (input.u8(), input.u8()) else {
                    return;
                };
                let screen = Screen {
                    size: (u16::from(width) + 1, u16::from(height) + 1),
                    seed: step.into(),
                };
                widest = widest.max(usize::from(screen.size.0));
                let wanted = session.wants_picture();
                let looked = session.look(screen);
                assert!(wanted || !looked, "nobody asked for a picture");
            }
            _ => {
                let length = session.output().len();
                assert!(
                    length <= widest * TILE * PIXEL * 2 + BESIDE,
                    "{length} bytes"
                );
                // Some viewers read slowly.
                session.sent(length / (1 + usize::from(step >> 6)));
            }
        }
    }
}

fn hear(heard: Heard) {
    if let Heard::Pointer { x, y, size, .. } = heard {
        assert!(
            x < size.0 && y < size.1,
            "the pointer is outside of the screen"
        );
    }
}
