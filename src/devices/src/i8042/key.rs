//! Names of keys: where a key sits, not what is printed on it.

/// A key of a PC keyboard, as remote displays name it.
///
/// The number is the one the RFB protocol's "QEMU Extended Key Event" message calls an *XT
/// keycode*: the make code of scan code set 1, with bit 7 set if the code carries the prefix
/// 0xE0. Left Ctrl is `0x1d`, right Ctrl (0xE0 0x1D) is `0x9d`. Two keys have odd scan
/// codes and get the numbers clients give them: Pause is `0xc6` and Print Screen `0x54` or `0xb7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u8);

impl Key {
    /// Escape.
    pub const ESCAPE: Self = Self(0x01);
    /// Backspace.
    pub const BACKSPACE: Self = Self(0x0e);
    /// Tab.
    pub const TAB: Self = Self(0x0f);
    /// Enter of the main block.
    pub const ENTER: Self = Self(0x1c);
    /// Left Ctrl.
    pub const LEFT_CTRL: Self = Self(0x1d);
    /// Left Shift.
    pub const LEFT_SHIFT: Self = Self(0x2a);
    /// Right Shift.
    pub const RIGHT_SHIFT: Self = Self(0x36);
    /// Left Alt.
    pub const LEFT_ALT: Self = Self(0x38);
    /// Space bar.
    pub const SPACE: Self = Self(0x39);
    /// Right Ctrl.
    pub const RIGHT_CTRL: Self = Self(0x9d);
    /// Print Screen.
    pub const PRINT_SCREEN: Self = Self(0xb7);
    /// Right Alt, called AltGr on many layouts.
    pub const RIGHT_ALT: Self = Self(0xb8);
    /// Pause, or Break together with Ctrl.
    pub const PAUSE: Self = Self(0xc6);
    /// Delete of the middle block.
    pub const DELETE: Self = Self(0xd3);

    /// What Print Screen sends while Alt is held, and what some clients call Print Screen.
    pub(super) const SYSTEM_REQUEST: Self = Self(0x54);

    /// The key with an XT keycode as RFB clients send it, if there can be one.
    pub const fn from_xt(code: u32) -> Option<Self> {
        match code {
            0x01..=0x7f | 0x81..=0xff => Some(Self(code as u8)),
            _ => None,
        }
    }

    /// The XT keycode.
    pub const fn xt(self) -> u8 {
        self.0
    }

    /// Whether its scan codes carry the prefix 0xE0.
    pub(super) fn extended(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// The make code of set 1, without prefix.
    pub(super) fn make(self) -> u8 {
        self.0 & 0x7f
    }
}
