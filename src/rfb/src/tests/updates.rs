//! What viewers see.

use proptest::prelude::*;

use super::viewer::{DESKTOP_SIZE, QEMU_KEYS, RAW, Seen, Viewer, ZRLE};
use super::*;

fn viewer(screen: &Screen, encodings: &[i32]) -> Viewer {
    let mut viewer = Viewer::new(screen);
    viewer.set_encodings(encodings);
    viewer
}

#[test]
fn a_viewer_sees_what_is_drawn_and_then_only_changes() {
    for encoding in [RAW, ZRLE] {
        let screen = Screen::new(200, 130);
        screen.scribble(1000, 1);
        let mut viewer = viewer(&screen, &[7, encoding]);
        assert_eq!(viewer.update(), None, "nobody has asked");
        viewer.request_all(false);
        let seen = viewer.update().unwrap();
        assert_eq!(
            seen.areas,
            [[0, 0, 200, 64], [0, 64, 200, 64], [0, 128, 200, 2]]
        );
        assert_eq!(viewer.difference(), None);
        viewer.request_all(true);
        assert_eq!(viewer.update(), None);
        // The request stays.
        screen.set(64, 63, 0xabcdef);
        screen.set(199, 129, 0xabcdef);
        assert_eq!(
            viewer.update().unwrap().areas,
            [[64, 0, 64, 64], [192, 128, 8, 2]]
        );
        assert_eq!(viewer.difference(), None);
        screen.set(0, 0, 0xabcdef);
        assert_eq!(viewer.update(), None, "nobody has asked again");
        viewer.request_all(false);
        assert_eq!(viewer.update().unwrap().areas.len(), 3);
        assert_eq!(viewer.difference(), None);
    }
}

#[test]
fn tiles_of_all_kinds_arrive() {
    for colours in [1, 2, 3, 4, 5, 16, 17, 1 << 24] {
        let screen = Screen::new(67, 65);
        screen.scribble(colours, 7);
        let mut viewer = viewer(&screen, &[ZRLE]);
        for _ in 0..3 {
            // The stream goes on from one to the next.
            viewer.request_all(false);
            viewer.update().unwrap();
            assert_eq!(viewer.difference(), None, "{colours} colours");
        }
    }
}

#[test]
fn only_what_was_asked_for_is_sent() {
    let screen = Screen::new(256, 256);
    let mut viewer = viewer(&screen, &[RAW]);
    viewer.request(false, [100, 100, 1, 1]);
    assert_eq!(viewer.update().unwrap().areas, [[64, 64, 64, 64]]);
    // Two requests are one, and what is outside of the screen is nothing.
    viewer.request(false, [0, 0, 1, 1]);
    viewer.request(false, [63, 0, 2, 1]);
    viewer.request(false, [256, 0, 65535, 65535]);
    viewer.request(true, [0, 300, 65535, 65535]);
    assert_eq!(viewer.update().unwrap().areas[0], [0, 0, 256, 64]);
    viewer.request(false, [300, 300, 10, 10]);
    assert_eq!(viewer.update(), None);
    viewer.request(false, [0, 0, 0, 0]);
    assert_eq!(viewer.update(), None);
}

#[test]
fn a_screen_changes_its_size() {
    let mut viewer = viewer(&Screen::new(80, 80), &[ZRLE, DESKTOP_SIZE]);
    viewer.request_all(false);
    viewer.update().unwrap();
    viewer.screen = Screen::new(128, 70);
    viewer.screen.scribble(3, 1);
    viewer.request_all(true);
    let resized = Seen {
        resized: true,
        ..Seen::default()
    };
    assert_eq!(viewer.update(), Some(resized));
    assert_eq!(viewer.size, (128, 70));
    assert_eq!(viewer.update(), None, "it has to ask");
    viewer.request_all(true);
    viewer.update().unwrap();
    assert_eq!(viewer.difference(), None);
}

#[test]
fn a_viewer_of_fixed_size_sees_a_part_and_black() {
    let mut viewer = viewer(&Screen::new(80, 80), &[ZRLE]);
    for (width, height) in [(100, 60), (60, 100), (1, 1), (8192, 1)] {
        viewer.screen = Screen::new(width, height);
        viewer.screen.scribble(100, 3);
        viewer.request_all(true);
        viewer.update().unwrap();
        assert_eq!(viewer.difference(), None);
        assert_eq!(viewer.size, (80, 80));
    }
}

#[test]
fn keys_by_their_place_are_offered_once() {
    let screen = Screen::new(10, 10);
    let mut viewer = viewer(&screen, &[RAW, QEMU_KEYS]);
    viewer.request_all(true);
    assert!(viewer.update().unwrap().keys);
    viewer.set_encodings(&[RAW, QEMU_KEYS]);
    viewer.request_all(true);
    assert_eq!(viewer.update(), None);
}

#[test]
fn the_offer_needs_no_change() {
    let screen = Screen::new(10, 10);
    let mut viewer = viewer(&screen, &[RAW]);
    viewer.request_all(true);
    viewer.update().unwrap();
    viewer.set_encodings(&[QEMU_KEYS]);
    viewer.request_all(true);
    let keys = Seen {
        keys: true,
        ..Seen::default()
    };
    assert_eq!(viewer.update(), Some(keys));
}

#[test]
fn what_a_viewer_does_is_heard() {
    let mut viewer = Viewer::new(&Screen::new(100, 50));
    // In the middle of it, a clipboard.
    viewer.send(&[4, 1, 0, 0, 0, 0, 0, 0x61, 6, 0, 0, 0, 0, 0, 0, 3, 5]);
    viewer.send(&[5, 5, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1e]);
    viewer.send(&[5, 1, 0, 10, 0, 20, 5, 0, 255, 255, 255, 255]);
    let size = (100, 50);
    let pointer = |x, y, buttons| Input::Pointer {
        x,
        y,
        size,
        buttons,
    };
    assert_eq!(
        viewer.heard,
        [
            Input::Key {
                keysym: 0x61,
                pressed: true
            },
            Input::Keycode {
                code: 0x1e,
                pressed: false
            },
            pointer(10, 20, 1),
            pointer(99, 49, 0),
        ]
    );
}

/// What a viewer may do, and what may happen to the screen.
#[derive(Debug, Clone)]
enum Act {
    Draw { x: u16, y: u16, colour: u32 },
    Scribble { colours: u32, seed: u32 },
    Size(u16, u16),
    Request(bool, [u16; 4]),
    Encoding(i32),
    Format(usize),
    Update,
}

fn act() -> impl Strategy<Value = Act> {
    let side = || prop_oneof![4 => 0..300_u16, 1 => any::<u16>()];
    prop_oneof![
        4 => (any::<u16>(), any::<u16>(), 0..1_u32 << 24).prop_map(|(x, y, colour)| Act::Draw { x, y, colour }),
        2 => (prop_oneof![1..20_u32, 1..1_u32 << 24], any::<u32>())
            .prop_map(|(colours, seed)| Act::Scribble { colours, seed }),
        1 => (1..200_u16, 1..200_u16).prop_map(|(width, height)| Act::Size(width, height)),
        4 => (any::<bool>(), side(), side(), side(), side())
            .prop_map(|(incremental, x, y, width, height)| Act::Request(incremental, [x, y, width, height])),
        1 => prop_oneof![Just(RAW), Just(ZRLE)].prop_map(Act::Encoding),
        1 => (0..FORMATS.len()).prop_map(Act::Format),
        6 => Just(Act::Update),
    ]
}

const FORMATS: [[u8; 16]; 5] = [
    [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
    [32, 24, 1, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0],
    [32, 24, 1, 1, 0, 255, 0, 255, 0, 255, 24, 16, 8, 0, 0, 0],
    [16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0],
    [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0],
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever came before, a viewer that asks for all of it sees the screen.
    #[test]
    fn in_the_end_the_viewer_sees_the_screen(resizes: bool, acts in prop::collection::vec(act(), 1..40)) {
        let mut viewer = Viewer::new(&Screen::new(150, 90));
        let pseudo = if resizes { DESKTOP_SIZE } else { RAW };
        viewer.set_encodings(&[ZRLE, pseudo]);
        for act in acts {
            match act {
                Act::Draw { x, y, colour } => {
                    let (width, height) = viewer.screen.size;
                    viewer.screen.set(x % width, y % height, colour);
                }
                Act::Scribble { colours, seed } => viewer.screen.scribble(colours, seed),
                Act::Size(width, height) => viewer.screen = Screen::new(width, height),
                Act::Request(incremental, area) => viewer.request(incremental, area),
                Act::Encoding(number) => viewer.set_encodings(&[number, pseudo]),
                Act::Format(number) => {
                    viewer.set_format(FORMATS[number]);
                    viewer.request_all(false);
                }
                Act::Update => drop(viewer.update()),
            }
        }
        for _ in 0..2 {
            viewer.request_all(true);
            viewer.update();
        }
        viewer.request_all(false);
        prop_assert!(viewer.update().is_some());
        prop_assert_eq!(viewer.difference(), None);
        prop_assert!(!resizes || viewer.size == viewer.screen.size);
        // And from now on, changes alone.
        let (width, height) = viewer.screen.size;
        let old = viewer.screen.get(width - 1, height - 1);
        viewer.screen.set(width - 1, height - 1, old ^ 0xff_ffff);
        viewer.request_all(true);
        let seen = viewer.update();
        let shown = viewer.size.0 >= width && viewer.size.1 >= height;
        prop_assert_eq!(seen.map_or(0, |seen| seen.areas.len()), usize::from(shown));
        prop_assert_eq!(viewer.difference(), None);
    }
}
