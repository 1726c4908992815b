//! A guest's console as a picture of a terminal.

/// Lines a guest's console is shown with.
const LINES_KEPT: usize = 1000;

/// A terminal emulator fed by one guest.
pub(crate) struct GuestConsole {
    pub(crate) name: String,
    parser: vt100::Parser,
}

impl GuestConsole {
    /// An empty screen of that size.
    pub(crate) fn new(name: String, rows: u16, columns: u16) -> Self {
        Self {
            name,
            parser: vt100::Parser::new(rows.max(1), columns.max(1), LINES_KEPT),
        }
    }

    /// Takes in what the guest wrote.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        self.parser.process(bytes);
    }

    /// Follows the size of the window.
    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        let size = (rows.max(1), columns.max(1));
        if self.parser.screen().size() != size {
            self.parser.screen_mut().set_size(size.0, size.1);
        }
    }

    /// What the terminal shows.
    pub(crate) fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }
}
