//! Whole sessions, with a viewer of our own that understands what it is sent.

mod handshake;
mod hostile;
mod updates;
mod viewer;

use std::cell::RefCell;
use std::rc::Rc;

use crate::{Input, Picture, Session};

/// A screen that tests draw on. Clones show the same.
#[derive(Clone)]
struct Screen {
    size: (u16, u16),
    pixels: Rc<RefCell<Vec<u32>>>,
}

impl Screen {
    /// Black.
    fn new(width: u16, height: u16) -> Self {
        let count = usize::from(width) * usize::from(height);
        Self {
            size: (width, height),
            pixels: Rc::new(RefCell::new(vec![0; count])),
        }
    }

    fn set(&self, x: u16, y: u16, colour: u32) {
        self.pixels.borrow_mut()[usize::from(y) * usize::from(self.size.0) + usize::from(x)] =
            colour;
    }

    fn get(&self, x: u16, y: u16) -> u32 {
        if x >= self.size.0 || y >= self.size.1 {
            return 0;
        }
        self.pixels.borrow()[usize::from(y) * usize::from(self.size.0) + usize::from(x)]
    }

    /// Draws something in every pixel: `colours` of them, so that tiles of all kinds come about.
    fn scribble(&self, colours: u32, seed: u32) {
        for (number, pixel) in (0..).zip(self.pixels.borrow_mut().iter_mut()) {
            let mixed = u32::wrapping_mul(number ^ seed, 0x9e37_79b1) >> 8;
            *pixel = (mixed % colours).wrapping_mul(0x0001_0305) & 0xff_ffff;
        }
    }
}

impl Picture for Screen {
    fn size(&self) -> (u16, u16) {
        self.size
    }

    fn row(&self, y: u16, pixels: &mut Vec<u32>) {
        let width = usize::from(self.size.0);
        let start = usize::from(y) * width;
        pixels.extend(&self.pixels.borrow()[start..start + width]);
    }
}

/// Everything that a session has to send now.
fn drain(session: &mut Session<Screen>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let output = session.output();
        if output.is_empty() {
            return all;
        }
        // As sockets do: a part at a time.
        let count = output.len().min(1000);
        all.extend_from_slice(&output[..count]);
        session.sent(count);
    }
}

fn ignore(_: Input) {}
