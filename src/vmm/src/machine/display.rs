//! What a person in front of the machine would have: a screen and a keyboard (and a mouse, which nobody moves so far).
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
use lodge_vmm_proto::MAX_SCREEN;

const _: () = assert!(MAX_PIXEL_BYTES <= MAX_SCREEN);

/// Screen and keyboard.
pub struct Display {
    ramfb: Arc<Mutex<Ramfb>>,
    controller: Arc<Mutex<I8042>>,
    keyboard: KeyboardHandle,
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
    /// A dark screen on `memory`, and a keyboard controller with keyboard and mouse.
    pub fn new(
        memory: GuestMemory,
        power: Arc<dyn PowerControl>,
        keyboard_irq: Arc<dyn InterruptLine>,
        mouse_irq: Arc<dyn InterruptLine>,
    ) -> Self {
        let (controller, keyboard, _mouse) = I8042::with_devices(power, keyboard_irq, mouse_irq);
        Self {
            ramfb: Arc::new(Mutex::new(Ramfb::new(memory))),
            controller,
            keyboard,
        }
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
