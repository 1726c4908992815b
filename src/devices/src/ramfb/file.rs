//! The file `etc/ramfb`, through which guests configure the display.

use std::sync::{Arc, Mutex};

use super::{CONFIG_BYTES, Ramfb};
use crate::fw_cfg::Source;

/// The file of a display, to be added to the firmware configuration device as
/// [`RAMFB_FILE`](super::RAMFB_FILE).
pub struct RamfbFile(Arc<Mutex<Ramfb>>);

impl RamfbFile {
    /// The file that configures `ramfb`.
    pub fn new(ramfb: &Arc<Mutex<Ramfb>>) -> Self {
        Self(Arc::clone(ramfb))
    }
}

impl Source for RamfbFile {
    fn read(&self) -> Vec<u8> {
        self.0.lock().unwrap().config_bytes().to_vec()
    }

    /// Every write counts at once, together with what was there before, as in QEMU: who writes the
    /// configuration in pieces shows nothing sensible until the last of them.
    fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        let mut ramfb = self.0.lock().unwrap();
        let mut config: [u8; CONFIG_BYTES] = ramfb.config_bytes();
        let Some(place) = offset
            .checked_add(data.len())
            .and_then(|end| config.get_mut(offset..end))
        else {
            return false;
        };
        place.copy_from_slice(data);
        ramfb.configure(&config);
        true
    }
}
