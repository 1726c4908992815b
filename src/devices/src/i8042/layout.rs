//! The US layout: which key to strike for a character.

use super::key::Key;
use super::keysyms;

/// One key of the US layout, struck with or without Shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stroke {
    /// The key.
    pub key: Key,
    /// Whether Shift has to be held for it; `None` if it does not matter.
    pub shift: Option<bool>,
}

/// Runs of keys with successive numbers: the first, what they give, and what with Shift.
const ROWS: [(u8, &str, &str); 7] = [
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1e, "asdfghjkl;'", "ASDFGHJKL:\""),
    (0x29, "`", "~"),
    (0x2b, "\\", "|"),
    (0x2c, "zxcvbnm,./", "ZXCVBNM<>?"),
    (0x39, " ", " "),
];

impl Stroke {
    /// The stroke that gives an ASCII character, including line feed, tab, backspace, escape
    /// and delete, while Caps Lock is off.
    pub fn of_char(character: char) -> Option<Self> {
        let control = match character {
            '\n' | '\r' => Some(Key::ENTER),
            '\t' => Some(Key::TAB),
            '\x08' => Some(Key::BACKSPACE),
            '\x1b' => Some(Key::ESCAPE),
            '\x7f' => Some(Key::DELETE),
            _ => None,
        };
        if let Some(key) = control {
            let shift = Some(false);
            return Some(Self { key, shift });
        }
        ROWS.iter().find_map(|(first, plain, shifted)| {
            let place = |row: &str| row.chars().position(|other| other == character);
            let (place, shift) = match place(plain) {
                Some(place) => (place, false),
                None => (place(shifted)?, true),
            };
            let key = Key::from_xt(u32::from(*first) + u32::try_from(place).ok()?)?;
            let shift = Some(shift);
            Some(Self { key, shift })
        })
    }

    /// The stroke for an X11 keysym, as RFB clients send it that do not know the QEMU key
    /// event. Such clients send the modifiers too, as keysyms of their own: `shift` is for
    /// where their layout disagrees with this one.
    pub fn of_keysym(keysym: u32) -> Option<Self> {
        match keysym {
            // Latin 1, and Unicode from an offset on.
            0x20..=0x7e => Self::of_char(char::from_u32(keysym)?),
            0x0100_0020..=0x0100_007e => Self::of_char(char::from_u32(keysym - 0x0100_0000)?),
            _ => keysyms::key(keysym).map(|key| Self { key, shift: None }),
        }
    }

    /// Presses and releases that make the whole stroke, with nothing else held.
    pub fn events(self) -> impl Iterator<Item = (Key, bool)> {
        let shift = (self.shift == Some(true)).then_some(Key::LEFT_SHIFT);
        let down = shift.into_iter().chain([self.key]).map(|key| (key, true));
        let up = [self.key].into_iter().chain(shift).map(|key| (key, false));
        down.chain(up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_has_its_own_stroke() {
        let strokes = (' '..='~').map(|character| Stroke::of_char(character).unwrap());
        let distinct: std::collections::BTreeSet<_> =
            strokes.map(|stroke| (stroke.key, stroke.shift)).collect();
        assert_eq!(distinct.len(), 95);
        for (character, key, shift) in [
            ('a', 0x1e, false),
            ('"', 0x28, true),
            ('?', 0x35, true),
            ('\\', 0x2b, false),
            ('+', 0x0d, true),
            ('\n', 0x1c, false),
        ] {
            let stroke = Stroke::of_char(character).unwrap();
            assert_eq!((stroke.key.xt(), stroke.shift), (key, Some(shift)));
        }
        assert_eq!(Stroke::of_char('ä'), None);
        assert_eq!(Stroke::of_char('\0'), None);
    }

    #[test]
    fn strokes_hold_shift() {
        let strokes = |character| {
            let stroke = Stroke::of_char(character).unwrap();
            let events = stroke.events().map(|(key, pressed)| (key.xt(), pressed));
            events.collect::<Vec<_>>()
        };
        assert_eq!(strokes('a'), [(0x1e, true), (0x1e, false)]);
        assert_eq!(
            strokes('A'),
            [(0x2a, true), (0x1e, true), (0x1e, false), (0x2a, false)]
        );
    }

    #[test]
    fn keysyms_have_keys() {
        for (keysym, key, shift) in [
            (0x41, 0x1e, Some(true)),
            (0x0100_0041, 0x1e, Some(true)),
            (0xff0d, 0x1c, None),
            (0xff8d, 0x9c, None),
            (0xffbe, 0x3b, None),
            (0xffc7, 0x44, None),
            (0xffc8, 0x57, None),
            (0xffb5, 0x4c, None),
            (0xff51, 0xcb, None),
        ] {
            let stroke = Stroke::of_keysym(keysym).unwrap();
            assert_eq!((stroke.key.xt(), stroke.shift), (key, shift), "{keysym:#x}");
        }
        for keysym in [0, 0x7f, 0xe4, 0xfe50, 0xffca, 0x0100_20ac, u32::MAX] {
            assert_eq!(Stroke::of_keysym(keysym), None, "{keysym:#x}");
        }
    }
}
