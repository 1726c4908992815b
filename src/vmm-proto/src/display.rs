//! The guest's screen and keyboard in the control conversation.

use serde::{Deserialize, Serialize};

/// Most bytes of a picture: what [`crate::RequestBody::Screen`] writes at most.
pub const MAX_SCREEN: u64 = 64 << 20;

/// Most presses and releases in one [`crate::RequestBody::Keys`].
pub const MAX_KEYS: usize = 256;

/// Most characters in one [`crate::RequestBody::Text`].
pub const MAX_TEXT: usize = 1024;

/// Longest name in a [`crate::RequestBody::AttachViewer`], in bytes.
pub const MAX_VIEWER_NAME: usize = 255;

/// A key goes down or comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEvent {
    /// The key's *XT keycode*: the make code of scan code set 1, with bit 7 set if the code carries the prefix
    /// 0xE0; Pause is 0xc6 and Print Screen 0xb7. 0x01 to 0xff without 0x80.
    pub key: u32,
    /// Whether it goes down.
    pub pressed: bool,
}

/// A button of the guest's pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointerButton {
    /// Left.
    Left,
    /// Middle.
    Middle,
    /// Right.
    Right,
}

/// Whether [`crate::RequestBody::Text`] can hold a character: what a US keyboard gives, Enter as line feed.
pub fn typeable(character: char) -> bool {
    matches!(character, ' '..='~' | '\n' | '\t')
}
