//! The server's side of the Remote Framebuffer Protocol (RFC 6143), which VNC viewers speak.
//!
//! A [`Session`] is one viewer's conversation without its socket: bytes from the viewer go in, what the viewer does comes
//! out as [`Input`], and bytes for the viewer are fetched when there is room for them. It looks at the screen only when the
//! viewer has asked for an update and taken the last one, so a viewer that reads slowly gets fewer pictures and never a
//! longer queue.
//!
//! Implemented are versions 3.3, 3.7 and 3.8 without security of their own (whoever carries the session has asked who it
//! is for), every true-colour pixel format, the encodings Raw and ZRLE, and the pseudo-encodings DesktopSize and QEMU
//! Extended Key Event. Viewers are taken for hostile: nothing they send makes a session keep more than a few KiB of it.

#![forbid(unsafe_code)]

mod area;
mod encoding;
mod format;
mod handshake;
mod message;
mod session;
mod tiles;
mod update;
mod zrle;

#[cfg(test)]
mod tests;

pub use message::Violation;
pub use session::Session;

/// A screen, as far as a session looks at it. It may change while it is read; its size may not.
pub trait Picture {
    /// Width and height in pixels, at least 1.
    fn size(&self) -> (u16, u16);

    /// Appends the pixels of row `y` from the top, each as 0x00RRGGBB. What is missing is black.
    fn row(&self, y: u16, pixels: &mut Vec<u32>);
}

/// What a viewer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It has connected and wants no others beside it (RFC 6143, 7.3.1).
    Alone,
    /// A key, by what it means on the viewer's keyboard.
    Key {
        /// X11 keysym.
        keysym: u32,
        /// Whether it goes down.
        pressed: bool,
    },
    /// A key, by its place: the QEMU Extended Key Event.
    Keycode {
        /// XT keycode: scan code set 1, with bit 7 set where the code has the prefix 0xE0.
        code: u32,
        /// Whether it goes down.
        pressed: bool,
    },
    /// Where the pointer is now, within the screen that the viewer knows.
    Pointer {
        /// Pixels to the left of it.
        x: u16,
        /// Rows above it.
        y: u16,
        /// Size of that screen.
        size: (u16, u16),
        /// Buttons that are down: left, middle, right, wheel up, wheel down, wheel left, wheel right, back, from bit 0 on.
        buttons: u8,
    },
}
