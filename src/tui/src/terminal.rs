//! Taking over the terminal, and giving it back whatever happens.

use std::io;

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

use crate::backend::OneWay;

/// What a serial line is taken for, which cannot tell its size.
const SERIAL_SIZE: (u16, u16) = (80, 24);

/// A terminal in full-screen mode until it is dropped.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<OneWay>,
}

impl Screen {
    /// Takes over the terminal on standard output.
    pub(crate) fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        let mut out = io::stdout();
        let terminal = execute!(out, EnterAlternateScreen)
            .and_then(|()| Terminal::with_options(OneWay::new(out), options()));
        match terminal {
            Ok(mut terminal) => {
                terminal.clear()?;
                Ok(Self { terminal })
            }
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn options() -> TerminalOptions {
    let viewport = match size() {
        Ok((1.., 1..)) => Viewport::Fullscreen,
        _ => Viewport::Fixed(Rect::new(0, 0, SERIAL_SIZE.0, SERIAL_SIZE.1)),
    };
    TerminalOptions { viewport }
}

fn restore() {
    // Nothing can be done where the terminal is gone.
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}
