//! A display without a graphics card: the guest says where in its memory the picture is.
//!
//! Firmware and guests write a configuration of 28 bytes to the file `etc/ramfb` of the firmware
//! configuration device (QEMU, `hw/display/ramfb.c` and `docs/specs/fw_cfg.rst`): address,
//! DRM format, flags, width, height and bytes per row, all big endian. From then on the picture is
//! whatever is in that memory; nobody tells when it changes, so whoever shows it looks as often as it likes.

mod file;
mod format;
mod mode;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::file::RamfbFile;
use self::mode::Mode;
pub use self::mode::{CONFIG_BYTES, MAX_PIXEL_BYTES, MAX_SIDE};
use crate::GuestMemory;
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};

/// Name of the file in the firmware configuration device.
pub const RAMFB_FILE: &str = "etc/ramfb";

const KIND: &str = "ramfb";

/// The display.
pub struct Ramfb {
    memory: GuestMemory,
    /// The configuration as written, for guests that read it back, good or bad.
    config: [u8; CONFIG_BYTES],
    /// What it means, if it is good.
    mode: Option<Mode>,
}

/// Where the picture is, to be copied without holding up the guest that configures.
#[derive(Debug, Clone)]
pub struct Scanout {
    memory: GuestMemory,
    mode: Mode,
}

#[derive(Serialize, Deserialize)]
struct State {
    config: Vec<u8>,
}

impl Ramfb {
    /// A display that shows nothing.
    pub fn new(memory: GuestMemory) -> Self {
        Self {
            memory,
            config: [0; CONFIG_BYTES],
            mode: None,
        }
    }

    /// The guest has written the file. What was shown before is gone, also if this
    /// configuration is refused: then nothing is shown.
    pub fn configure(&mut self, bytes: &[u8; CONFIG_BYTES]) {
        self.config = *bytes;
        self.mode = Mode::parse(bytes, &self.memory);
    }

    /// The file as the guest reads it back.
    pub fn config_bytes(&self) -> [u8; CONFIG_BYTES] {
        self.config
    }

    /// Where the picture is, if there is one.
    pub fn scanout(&self) -> Option<Scanout> {
        let memory = self.memory.clone();
        self.mode.map(|mode| Scanout { memory, mode })
    }
}

impl Scanout {
    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.mode.width, self.mode.height)
    }

    /// The rows from the top, each pixel as 0x00RRGGBB, copied out of the guest's memory one after the
    /// other: for a picture that is passed on and need not be held as a whole.
    pub fn rows(&self) -> impl Iterator<Item = Vec<u32>> {
        self.mode.rows(&self.memory)
    }

    /// Appends the pixels of row `y` from the top, as 0x00RRGGBB; none where there is no such row.
    pub fn row(&self, y: u32, pixels: &mut Vec<u32>) {
        // Rows that were in memory stay there.
        let _ = self.mode.row(&self.memory, y, pixels);
    }
}

impl Device for Ramfb {
    fn name(&self) -> &str {
        "ramfb"
    }

    fn reset(&mut self) {
        self.config = [0; CONFIG_BYTES];
        self.mode = None;
    }

    fn save(&self) -> DeviceState {
        let config = self.config.to_vec();
        DeviceState::new(KIND, 1, &State { config })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let State { config } = state.decode(KIND, 1)?;
        let config = config
            .try_into()
            .map_err(|config: Vec<u8>| RestoreError::Invalid {
                kind: KIND,
                problem: format!("{} bytes of configuration", config.len()),
            })?;
        self.configure(&config);
        Ok(())
    }
}
