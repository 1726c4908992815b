//! The guest's screen as viewers see it.

use lodge_devices::ramfb::{MAX_SIDE, Scanout};
use lodge_rfb::Picture;

const _: () = assert!(MAX_SIDE <= u16::MAX as u32);

/// Size of a screen that has shown nothing so far.
const DARK: (u16, u16) = (640, 480);

/// What is on the screen at a moment: the guest may go on drawing, but not move it.
#[derive(Clone)]
pub struct View {
    scanout: Option<Scanout>,
    size: (u16, u16),
}

impl View {
    /// A screen that was never lit.
    pub fn dark() -> Self {
        Self {
            scanout: None,
            size: DARK,
        }
    }

    /// What follows on this view: a screen that goes dark keeps its size.
    pub fn next(&self, scanout: Option<Scanout>) -> Self {
        let size = scanout.as_ref().map(|scanout| {
            let (width, height) = scanout.size();
            // See the assertion.
            (width as u16, height as u16)
        });
        Self {
            scanout,
            size: size.unwrap_or(self.size),
        }
    }
}

impl Picture for View {
    fn size(&self) -> (u16, u16) {
        self.size
    }

    fn row(&self, y: u16, pixels: &mut Vec<u32>) {
        if let Some(scanout) = &self.scanout {
            scanout.row(y.into(), pixels);
        }
    }
}
