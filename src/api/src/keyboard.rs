//! What is typed on a guest's keyboard.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What to type: the body of `POST /v1/vms/{vm}:type`. Exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmKeys {
    /// A text of 1 to 1024 characters that a US keyboard has; a line feed is Enter. Right where the guest expects a US
    /// keyboard and Caps Lock is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// 1 to 64 keys, struck one after the other, or chords of up to 8 keys that are held together, with `-` between them:
    /// `ctrl-alt-delete`. Names are those of a US keyboard: `a` to `z`, `0` to `9`, `f1` to `f12`, `esc`, `tab`, `enter`,
    /// `space`, `backspace`, `minus`, `equal`, `leftbracket`, `rightbracket`, `backslash`, `semicolon`, `apostrophe`, `grave`,
    /// `comma`, `period`, `slash`, `less` (beside the left Shift of other layouts), `insert`, `delete`, `home`, `end`, `pageup`,
    /// `pagedown`, `up`, `down`, `left`, `right`, `capslock`, `numlock`, `scrolllock`, `print`, `pause`, `menu`, `shift`,
    /// `ctrl`, `alt`, `super`, `rightshift`, `rightctrl`, `rightalt`, `rightsuper`, and on the keypad `kp0` to `kp9`, `kpplus`,
    /// `kpminus`, `kpmultiply`, `kpdivide`, `kpdecimal`, `kpenter`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["ctrl-alt-delete", "f2", "enter"]))]
    pub keys: Vec<String>,
}

/// Names of keys and their XT keycodes: make codes of scan code set 1, with bit 7 set where the code carries the prefix 0xE0.
const KEYS: [(&str, u8); 105] = [
    ("a", 0x1e),
    ("b", 0x30),
    ("c", 0x2e),
    ("d", 0x20),
    ("e", 0x12),
    ("f", 0x21),
    ("g", 0x22),
    ("h", 0x23),
    ("i", 0x17),
    ("j", 0x24),
    ("k", 0x25),
    ("l", 0x26),
    ("m", 0x32),
    ("n", 0x31),
    ("o", 0x18),
    ("p", 0x19),
    ("q", 0x10),
    ("r", 0x13),
    ("s", 0x1f),
    ("t", 0x14),
    ("u", 0x16),
    ("v", 0x2f),
    ("w", 0x11),
    ("x", 0x2d),
    ("y", 0x15),
    ("z", 0x2c),
    ("0", 0x0b),
    ("1", 0x02),
    ("2", 0x03),
    ("3", 0x04),
    ("4", 0x05),
    ("5", 0x06),
    ("6", 0x07),
    ("7", 0x08),
    ("8", 0x09),
    ("9", 0x0a),
    ("f1", 0x3b),
    ("f2", 0x3c),
    ("f3", 0x3d),
    ("f4", 0x3e),
    ("f5", 0x3f),
    ("f6", 0x40),
    ("f7", 0x41),
    ("f8", 0x42),
    ("f9", 0x43),
    ("f10", 0x44),
    ("f11", 0x57),
    ("f12", 0x58),
    ("esc", 0x01),
    ("tab", 0x0f),
    ("enter", 0x1c),
    ("space", 0x39),
    ("backspace", 0x0e),
    ("minus", 0x0c),
    ("equal", 0x0d),
    ("leftbracket", 0x1a),
    ("rightbracket", 0x1b),
    ("backslash", 0x2b),
    ("semicolon", 0x27),
    ("apostrophe", 0x28),
    ("grave", 0x29),
    ("comma", 0x33),
    ("period", 0x34),
    ("slash", 0x35),
    ("less", 0x56),
    ("insert", 0xd2),
    ("delete", 0xd3),
    ("home", 0xc7),
    ("end", 0xcf),
    ("pageup", 0xc9),
    ("pagedown", 0xd1),
    ("up", 0xc8),
    ("down", 0xd0),
    ("left", 0xcb),
    ("right", 0xcd),
    ("capslock", 0x3a),
    ("numlock", 0x45),
    ("scrolllock", 0x46),
    ("print", 0xb7),
    ("pause", 0xc6),
    ("menu", 0xdd),
    ("shift", 0x2a),
    ("ctrl", 0x1d),
    ("alt", 0x38),
    ("super", 0xdb),
    ("rightshift", 0x36),
    ("rightctrl", 0x9d),
    ("rightalt", 0xb8),
    ("rightsuper", 0xdc),
    ("kp0", 0x52),
    ("kp1", 0x4f),
    ("kp2", 0x50),
    ("kp3", 0x51),
    ("kp4", 0x4b),
    ("kp5", 0x4c),
    ("kp6", 0x4d),
    ("kp7", 0x47),
    ("kp8", 0x48),
    ("kp9", 0x49),
    ("kpplus", 0x4e),
    ("kpminus", 0x4a),
    ("kpmultiply", 0x37),
    ("kpdivide", 0xb5),
    ("kpdecimal", 0x53),
    ("kpenter", 0x9c),
];

/// Keys that are held together; one alone, mostly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chord(Vec<u8>);

/// A text that is no [`Chord`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChordError {
    /// No key has this name.
    #[error("there is no key \"{0}\"")]
    Unknown(String),
    /// A key is named twice.
    #[error("the key \"{0}\" cannot be held twice")]
    Twice(String),
    /// More than [`Chord::MAX`] keys.
    #[error("more than {max} keys at once", max = Chord::MAX)]
    TooMany,
}

impl Chord {
    /// Most keys of a chord.
    pub const MAX: usize = 8;

    /// The keys in the order in which they go down, as XT keycodes.
    pub fn keys(&self) -> &[u8] {
        &self.0
    }

    /// The names of all keys.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|(name, _)| *name)
    }
}

impl FromStr for Chord {
    type Err = ChordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut keys = Vec::new();
        for name in text.split('-') {
            let shown = || -> String {
                let start = name.chars().take(40);
                start.flat_map(char::escape_debug).collect()
            };
            let known = KEYS.iter().find(|(known, _)| *known == name);
            let (_, key) = known.ok_or_else(|| ChordError::Unknown(shown()))?;
            if keys.contains(key) {
                return Err(ChordError::Twice(shown()));
            }
            if keys.len() == Self::MAX {
                return Err(ChordError::TooMany);
            }
            keys.push(*key);
        }
        Ok(Self(keys))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::PartialSchema;

    use super::*;

    fn keys(text: &str) -> Vec<u8> {
        text.parse::<Chord>().unwrap().0
    }

    #[test]
    fn chords_are_taken_apart() {
        assert_eq!(keys("enter"), [0x1c]);
        assert_eq!(keys("ctrl-alt-delete"), [0x1d, 0x38, 0xd3]);
        assert_eq!(keys("shift-minus"), [0x2a, 0x0c]);
    }

    #[test]
    fn what_is_no_chord_is_refused() {
        for text in [
            "", "-", "a-", "-a", "Enter", "enter ", "kp", "ctrl+a", "\u{0}",
        ] {
            let error = text.parse::<Chord>().unwrap_err();
            assert!(matches!(error, ChordError::Unknown(_)), "{text:?}: {error}");
        }
        let long = "x\n".repeat(100).parse::<Chord>().unwrap_err().to_string();
        assert!(long.len() < 120 && !long.contains('\n'), "{long}");
        assert_eq!(
            "ctrl-ctrl".parse::<Chord>(),
            Err(ChordError::Twice("ctrl".to_owned()))
        );
        let eight = "a-b-c-d-e-f-g-h";
        assert_eq!(keys(eight).len(), Chord::MAX);
        assert_eq!(
            format!("{eight}-i").parse::<Chord>(),
            Err(ChordError::TooMany)
        );
    }

    #[test]
    fn every_key_has_one_name_and_the_schema_tells_it() {
        let names: BTreeSet<_> = Chord::names().collect();
        let codes: BTreeSet<_> = KEYS.iter().map(|(_, key)| key).collect();
        assert_eq!((names.len(), codes.len()), (KEYS.len(), KEYS.len()));
        let schema = serde_json::to_value(VmKeys::schema()).unwrap();
        let text = schema["properties"]["keys"]["description"].as_str();
        let text = text.unwrap().split('`').collect::<Vec<_>>();
        // Runs are told by their ends.
        let run = |name: &&str| {
            let digits = name.trim_start_matches("kp").trim_start_matches('f');
            name.len() == 1 || digits.parse::<u8>().is_ok()
        };
        for name in names.into_iter().filter(|name| !run(name)) {
            assert!(text.contains(&name), "{name}");
        }
    }
}
