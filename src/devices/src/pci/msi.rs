//! The MSI capability with one vector, a 64-bit address and no mask bit (PCI 3.0, 6.8.1).

use std::io;
use std::sync::Arc;

use super::config::ConfigSpace;
use super::refusal::Refusal;
use crate::interrupt::{MsiMessage, MsiVector, Platform};

const CAPABILITY_ID: u8 = 0x05;
/// Message control: the only bit a driver may change, and that the address has 64 bits.
const ENABLE: u16 = 1 << 0;
const WIDE: u16 = 1 << 7;

/// The vector of one function. All its state is in configuration space.
pub struct Msi {
    line: Arc<dyn MsiVector>,
    enabled: bool,
    /// What the line was last configured with, while it may send.
    live: Option<MsiMessage>,
    refusal: Refusal,
}

impl Msi {
    /// A vector from `platform`, off.
    ///
    /// # Errors
    /// When the platform has no more.
    pub fn new(platform: &dyn Platform) -> io::Result<Self> {
        Ok(Self {
            line: platform.msi_vector()?,
            enabled: false,
            live: None,
            refusal: Refusal::default(),
        })
    }

    /// Adds the capability to `config` at build time and returns its offset.
    pub fn add_capability(config: &mut ConfigSpace) -> usize {
        let mut body = [0; 12];
        body[..2].copy_from_slice(&WIDE.to_le_bytes());
        let mut writable = [0; 12];
        writable[..2].copy_from_slice(&ENABLE.to_le_bytes());
        // Address without its two lowest bits, then 16 bits of data.
        writable[2..12]
            .copy_from_slice(&[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        config.add_capability(CAPABILITY_ID, &body, &writable)
    }

    /// Follows the capability at `capability`; to be called after configuration space may
    /// have changed.
    pub fn sync(&mut self, config: &ConfigSpace, capability: usize) {
        self.enabled = config.u16(capability + 2) & ENABLE != 0;
        let message = MsiMessage {
            address: u64::from(config.u32(capability + 4))
                | u64::from(config.u32(capability + 8)) << 32,
            data: config.u16(capability + 12).into(),
        };
        let wanted = self.enabled.then_some(message);
        if self.live == wanted {
            return;
        }
        self.live = wanted;
        if let Err(error) = self.line.configure(message, !self.enabled) {
            self.refusal.log(&error, message);
            self.live = None;
        }
    }

    /// Whether the driver chose messages over the wired interrupt.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Sends the message, if the driver turned it on.
    pub fn trigger(&self) {
        if self.live.is_some() {
            self.line.trigger();
        }
    }
}
