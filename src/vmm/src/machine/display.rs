//! What a person in front of the machine would have: a screen, a keyboard, and a mouse or a tablet.
//!
//! Only guests that start by firmware have it: it is firmware that shows its text there, and finds it by a file of the
//! firmware configuration device.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use lodge_devices::GuestMemory;
use lodge_devices::i8042::{I8042, Key, KeyboardHandle, Stroke};
use lodge_devices::interrupt::InterruptLine;
use lodge_devices::lifecycle::Shared;
use lodge_devices::power::PowerControl;
use lodge_devices::ramfb::{MAX_PIXEL_BYTES, Ramfb, RamfbFile};
use lodge_devices::virtio::input::{Report, TabletHandle};
use lodge_vmm_proto::MAX_SCREEN;

use super::hardware::Prologue;
use crate::viewers::{Hands, Pointer, Viewers, place_on_tablet};

const _: () = assert!(MAX_PIXEL_BYTES <= MAX_SCREEN);

/// Screen, keyboard and mouse, and who uses them from afar.
pub struct Display {
    ramfb: Arc<Mutex<Ramfb>>,
    controller: Arc<Mutex<I8042>>,
    keyboard: KeyboardHandle,
    tablet: TabletHandle,
    viewers: Viewers,
}

/// There is nothing to point at, or to point with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointError {
    /// No system has set the screen up (yet).
    #[error("the guest shows nothing: no system in it has set its screen up")]
    Nothing,
    /// No system uses the tablet (yet).
    #[error("no system in the guest uses its tablet: it needs a driver for virtio input devices")]
    NoDriver,
}

/// The picture cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// No system has set the screen up (yet).
    #[error("the guest shows nothing: no system in it has set its screen up")]
    Nothing,
    /// The file does not take it.
    #[error("the picture could not be written: {0}")]
    Write(#[from] io::Error),
}

impl Display {
    /// A dark screen on `memory`, and a keyboard controller with keyboard and mouse, which have an interrupt each;
    /// `tablet` is moved with them. The thread for viewers starts at once and runs `prologue` first.
    ///
    /// # Errors
    /// When the host is out of threads or descriptors.
    pub fn new(
        memory: GuestMemory,
        power: Arc<dyn PowerControl>,
        [keyboard_irq, mouse_irq]: [Arc<dyn InterruptLine>; 2],
        tablet: TabletHandle,
        prologue: Prologue,
    ) -> io::Result<Self> {
        let (controller, keyboard, mouse) = I8042::with_devices(power, keyboard_irq, mouse_irq);
        let ramfb = Arc::new(Mutex::new(Ramfb::new(memory)));
        let hands = Hands::new(keyboard.clone(), Pointer::new(mouse, tablet.clone()));
        Ok(Self {
            viewers: Viewers::start(Arc::clone(&ramfb), hands, prologue)?,
            ramfb,
            controller,
            keyboard,
            tablet,
        })
    }

    /// Those who see the screen.
    pub fn viewers(&self) -> &Viewers {
        &self.viewers
    }

    /// The keyboard controller, for its ports.
    pub fn controller(&self) -> &Arc<Mutex<I8042>> {
        &self.controller
    }

    /// Its devices, for reset and pause.
    pub fn devices(&self) -> [Shared; 2] {
        [
            Arc::clone(&self.controller) as Shared,
            Arc::clone(&self.ramfb) as Shared,
        ]
    }

    /// The file by which the guest sets the screen up.
    pub fn file(&self) -> RamfbFile {
        RamfbFile::new(&self.ramfb)
    }

    /// Writes the picture from the start of `file`, as [`lodge_vmm_proto::RequestBody::Screen`] says; returns its width
    /// and height. Row by row: a copy as a whole would count against the memory of the monitor.
    ///
    /// # Errors
    /// When there is no picture, or the file does not take it.
    pub fn write_screen(&self, file: &File) -> Result<(u32, u32), ScreenError> {
        // Not locked while copying, so that a guest which sets another mode need not wait.
        let scanout = self.ramfb.lock().unwrap().scanout();
        let scanout = scanout.ok_or(ScreenError::Nothing)?;
        let mut offset = 0;
        for row in scanout.rows() {
            let bytes: Vec<u8> = row.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
            file.write_all_at(&bytes, offset)?;
            offset += bytes.len() as u64;
        }
        Ok(scanout.size())
    }

    /// Moves the tablet's pointer to a pixel, and presses and releases `click` there, a button as
    /// [`Report::buttons`] has it or 0. Nothing happens outside of the screen, whose width and height it returns.
    ///
    /// # Errors
    /// When there is no picture, or no driver for the tablet.
    pub fn point(&self, x: u32, y: u32, click: u8) -> Result<(u32, u32), PointError> {
        let scanout = self.ramfb.lock().unwrap().scanout();
        let (width, height) = scanout.ok_or(PointError::Nothing)?.size();
        if x < width && y < height {
            let place = Report {
                x: place_on_tablet(x, width),
                y: place_on_tablet(y, height),
                ..Report::default()
            };
            let pressed = Report {
                buttons: click,
                ..place
            };
            for report in [place, pressed, place] {
                if !self.tablet.report(report) {
                    return Err(PointError::NoDriver);
                }
            }
        }
        Ok((width, height))
    }

    /// Presses and releases keys in order until the keyboard has no room; returns how many it took. Releases are
    /// always taken, else whoever gives up could not let go.
    pub fn press(&self, events: &[(Key, bool)]) -> usize {
        let taken = events.iter().take_while(|&&(key, pressed)| {
            if pressed {
                self.keyboard.ready() && self.keyboard.key(key, true)
            } else {
                self.keyboard.key(key, false);
                true
            }
        });
        taken.count()
    }

    /// Strikes keys in order until the keyboard has no room; returns how many it took.
    pub fn strike(&self, strokes: &[Stroke]) -> usize {
        let taken = strokes
            .iter()
            .take_while(|stroke| self.keyboard.ready() && self.strike_one(**stroke));
        taken.count()
    }

    /// Whether the guest hears of the whole stroke. If not, it may strike again without a key stuck.
    fn strike_one(&self, stroke: Stroke) -> bool {
        let mut heard = true;
        for (key, pressed) in stroke.events() {
            // A guest can silence its keyboard at any moment.
            heard &= self.keyboard.key(key, pressed);
        }
        heard
    }
}
