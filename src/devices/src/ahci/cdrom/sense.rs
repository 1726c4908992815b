//! Why a packet failed: key, code and qualifier (SPC-4, 4.5; MMC-5, annex F).

use serde::{Deserialize, Serialize};

/// Sense data in short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sense {
    pub key: u8,
    pub code: u8,
    pub qualifier: u8,
}

impl Sense {
    pub const NONE: Self = Self::new(0, 0, 0);
    pub const NO_MEDIUM: Self = Self::new(2, 0x3a, 0x01);
    pub const TRAY_OPEN: Self = Self::new(2, 0x3a, 0x02);
    pub const READ_ERROR: Self = Self::new(3, 0x11, 0x00);
    pub const UNKNOWN_COMMAND: Self = Self::new(5, 0x20, 0x00);
    pub const OUT_OF_RANGE: Self = Self::new(5, 0x21, 0x00);
    pub const BAD_FIELD: Self = Self::new(5, 0x24, 0x00);
    pub const NO_SAVED_PAGES: Self = Self::new(5, 0x39, 0x00);
    pub const LOCKED: Self = Self::new(5, 0x53, 0x02);
    pub const MEDIUM_CHANGED: Self = Self::new(6, 0x28, 0x00);
    pub const RESET: Self = Self::new(6, 0x29, 0x00);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self {
            key,
            code,
            qualifier,
        }
    }

    /// In fixed format.
    pub fn bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = 0x70;
        bytes[2] = self.key & 0xf;
        bytes[7] = 10;
        bytes[12] = self.code;
        bytes[13] = self.qualifier;
        bytes
    }
}
