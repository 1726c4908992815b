//! The three scan code sets, and the controller's translation of the second into the first.
//!
//! Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard", and Microsoft's Keyboard
//! Scan Code Specification. Left out are the Shift codes that a keyboard sends around
//! the middle block's keys while Shift or Num Lock is on: they make up for programs older
//! than that block.

use super::key::Key;

/// Precedes the codes of keys the original keyboards lacked.
const EXTENDED: u8 = 0xe0;
/// Precedes the make code when a key is released, in sets 2 and 3.
pub(super) const RELEASE: u8 = 0xf0;
/// Makes a make code a release code in set 1.
const RELEASE_SET1: u8 = 0x80;

/// Set 2 to set 1 for codes below 0x80, as the controller translates.
const TRANSLATION: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, // 00
    0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, // 08
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, // 10
    0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, // 18
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, // 20
    0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, // 28
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, // 30
    0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, // 38
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, // 40
    0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, // 48
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, // 50
    0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, // 58
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, // 60
    0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, // 68
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, // 70
    0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, // 78
];

/// The other way round. Two keys have codes above the table.
const SET2: [u8; 128] = {
    let mut inverse = [0; 128];
    let mut code = 1;
    while code < 128 {
        inverse[TRANSLATION[code] as usize] = code as u8;
        code += 1;
    }
    inverse[0x41] = 0x83;
    inverse[0x54] = 0x84;
    inverse
};

/// Keys whose code in set 3 is not that of set 2: XT keycode and code.
const SET3: [(u8, u8); 43] = [
    (0x01, 0x08), // Esc
    (0x3b, 0x07), // F1
    (0x3c, 0x0f),
    (0x3d, 0x17),
    (0x3e, 0x1f),
    (0x3f, 0x27),
    (0x40, 0x2f),
    (0x41, 0x37),
    (0x42, 0x3f),
    (0x43, 0x47),
    (0x44, 0x4f),
    (0x57, 0x56),
    (0x58, 0x5e), // F12
    (0x54, 0x57), // Print Screen
    (0xb7, 0x57),
    (0x46, 0x5f), // Scroll Lock
    (0xc6, 0x62), // Pause
    (0x2b, 0x5c), // backslash
    (0x56, 0x13), // the key beside left Shift
    (0x3a, 0x14), // Caps Lock
    (0x1d, 0x11), // left Ctrl
    (0x38, 0x19), // left Alt
    (0xb8, 0x39), // right Alt
    (0x9d, 0x58), // right Ctrl
    (0xdb, 0x8b), // left and right system key
    (0xdc, 0x8c),
    (0xdd, 0x8d), // menu
    (0xd2, 0x67), // Insert
    (0xc7, 0x6e), // Home
    (0xc9, 0x6f), // Page Up
    (0xd3, 0x64), // Delete
    (0xcf, 0x65), // End
    (0xd1, 0x6d), // Page Down
    (0xc8, 0x63), // Up
    (0xcb, 0x61), // Left
    (0xd0, 0x60), // Down
    (0xcd, 0x6a), // Right
    (0x45, 0x76), // Num Lock
    (0xb5, 0x4a), // keypad: divide
    (0x37, 0x7e), // multiply
    (0x4a, 0x84), // minus
    (0x4e, 0x7c), // plus
    (0x9c, 0x79), // Enter
];

/// What the controller makes of a byte from the keyboard when it translates.
pub(super) fn translate(code: u8) -> u8 {
    match code {
        0x83 => 0x41,
        0x84 => 0x54,
        0..=0x7f => TRANSLATION[usize::from(code)],
        _ => code,
    }
}

/// Modifiers that change what a key sends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Modifiers {
    pub ctrl: bool,
    pub shift: bool,
}

/// What the keyboard sends when `key` goes down or up in `set`; nothing if the set lacks it.
pub(super) fn sequence(set: u8, key: Key, pressed: bool, modifiers: Modifiers) -> Vec<u8> {
    if set == 3 {
        return set3(key, pressed);
    }
    let mut bytes = Vec::new();
    let mut put = |prefix: Option<u8>, make: u8, pressed: bool| {
        bytes.extend(prefix);
        match (set, pressed) {
            (1, true) => bytes.push(make),
            (1, false) => bytes.push(make | RELEASE_SET1),
            (_, true) => bytes.push(SET2[usize::from(make)]),
            (_, false) => bytes.extend([RELEASE, SET2[usize::from(make)]]),
        }
    };
    match key {
        // Pause tells everything when it goes down and nothing when it comes up.
        Key::PAUSE if !pressed => {}
        Key::PAUSE if modifiers.ctrl => {
            put(Some(EXTENDED), 0x46, true);
            put(Some(EXTENDED), 0x46, false);
        }
        Key::PAUSE => {
            for pressed in [true, false] {
                put(Some(0xe1), 0x1d, pressed);
                put(None, 0x45, pressed);
            }
        }
        // Print Screen was the shifted asterisk once: it brings its own Shift.
        Key::PRINT_SCREEN if !modifiers.ctrl && !modifiers.shift => {
            if pressed {
                put(Some(EXTENDED), 0x2a, true);
                put(Some(EXTENDED), 0x37, true);
            } else {
                put(Some(EXTENDED), 0x37, false);
                put(Some(EXTENDED), 0x2a, false);
            }
        }
        key => put(key.extended().then_some(EXTENDED), key.make(), pressed),
    }
    bytes
}

fn set3(key: Key, pressed: bool) -> Vec<u8> {
    let listed = SET3.iter().find(|(xt, _)| *xt == key.xt());
    let code = match listed {
        Some((_, code)) => *code,
        None if key.extended() => return Vec::new(),
        None => SET2[usize::from(key.make())],
    };
    if pressed {
        vec![code]
    } else {
        vec![RELEASE, code]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(set: u8, xt: u32, pressed: bool) -> Vec<u8> {
        let key = Key::from_xt(xt).unwrap();
        sequence(set, key, pressed, Modifiers::default())
    }

    #[test]
    fn every_key_translates_to_itself() {
        for xt in (0x01..=0xff).filter(|xt| *xt != 0x80) {
            for pressed in [true, false] {
                let mut translated = Vec::new();
                let mut release = false;
                for byte in send(2, xt, pressed) {
                    if byte == RELEASE {
                        release = true;
                    } else if std::mem::take(&mut release) {
                        translated.push(translate(byte) | 0x80);
                    } else {
                        translated.push(translate(byte));
                    }
                }
                assert_eq!(translated, send(1, xt, pressed), "key {xt:#x}");
            }
        }
    }

    #[test]
    fn well_known_codes() {
        for (xt, set1, set2, set3) in [
            (0x1e, "1e", "1c", "1c"),       // a
            (0x41, "41", "83", "37"),       // F7
            (0x1c, "1c", "5a", "5a"),       // Enter
            (0x9c, "e0 1c", "e0 5a", "79"), // keypad Enter
            (0xc8, "e0 48", "e0 75", "63"), // Up
            (0xdb, "e0 5b", "e0 1f", "8b"), // left system key
            (0x56, "56", "61", "13"),
        ] {
            let hex = |bytes: Vec<u8>| {
                let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                bytes.join(" ")
            };
            let codes = [1, 2, 3].map(|set| hex(send(set, xt, true)));
            assert_eq!(codes, [set1, set2, set3], "key {xt:#x}");
        }
        assert_eq!(send(1, 0xc8, false), [0xe0, 0xc8]);
        assert_eq!(send(2, 0xc8, false), [0xe0, 0xf0, 0x75]);
        assert_eq!(send(3, 0xc8, false), [0xf0, 0x63]);
        // A volume key, unknown to set 3.
        assert!(send(3, 0xae, true).is_empty());
    }

    #[test]
    fn set_3_lists_no_key_twice() {
        let keys: std::collections::BTreeSet<_> = SET3.iter().map(|(xt, _)| xt).collect();
        assert_eq!(keys.len(), SET3.len());
    }
}
