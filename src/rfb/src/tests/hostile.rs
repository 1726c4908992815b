//! Viewers that mean no good: nothing panics, and nothing grows.

use proptest::prelude::*;

use super::viewer::{RAW, Viewer, ZRLE};
use super::*;

/// More than a session ever keeps of what it is sent.
const KEPT: usize = 32 << 10;

#[test]
fn a_million_requests_are_one() {
    let screen = Screen::new(300, 200);
    let mut viewer = Viewer::new(&screen);
    let requests = [3, 0, 0, 0, 0, 0, 255, 255, 255, 255].repeat(1000);
    for _ in 0..1000 {
        viewer.send(&requests);
    }
    assert_eq!(viewer.update().unwrap().areas.len(), 4);
    assert_eq!(viewer.difference(), None);
    assert_eq!(viewer.update(), None);
}

#[test]
fn a_viewer_that_does_not_read_is_sent_one_rectangle_and_no_more() {
    let screen = Screen::new(8192, 1024);
    screen.scribble(1 << 24, 1);
    let mut viewer = Viewer::new(&screen);
    viewer.request_all(false);
    assert!(viewer.session.look(screen.clone()));
    viewer.session.output();
    viewer.session.sent(4);
    let rectangle = viewer.session.output().len();
    assert_eq!(rectangle, 12 + 8192 * 64 * 4);
    for _ in 0..1000 {
        viewer.request_all(false);
        viewer.set_encodings(&[ZRLE, RAW, -258]);
        assert!(!viewer.session.wants_picture());
        assert!(!viewer.session.look(screen.clone()));
        assert_eq!(viewer.session.output().len(), rectangle);
    }
}

#[test]
fn clipboards_are_passed_over() {
    let mut viewer = Viewer::new(&Screen::new(10, 10));
    viewer.send(&[6, 0, 0, 0, 1, 0, 0, 0]);
    for _ in 0..256 {
        viewer.send(&[0xaa; 1 << 16]);
        assert!(viewer.session.kept() < KEPT);
    }
    viewer.send(&[5, 0, 0, 1, 0, 1]);
    assert_eq!(viewer.heard.len(), 1);
}

#[test]
fn the_longest_message_is_kept_and_then_gone() {
    let mut viewer = Viewer::new(&Screen::new(10, 10));
    viewer.send(&[2, 0, 4, 0]);
    for _ in 0..1023 {
        viewer.send(&[0; 4]);
    }
    assert!(viewer.session.kept() < KEPT);
    viewer.send(&[0; 4]);
    assert_eq!(viewer.session.kept(), 0);
}

/// Bytes that are sometimes messages.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let word = || prop_oneof![2 => 0..200_u16, 1 => any::<u16>()];
    let request = (any::<bool>(), word(), word(), word(), word()).prop_map(
        |(incremental, x, y, width, height)| {
            let area = [x, y, width, height].map(u16::to_be_bytes).concat();
            [&[3, u8::from(incremental)][..], &area].concat()
        },
    );
    let encodings = prop::collection::vec(
        prop_oneof![Just(RAW), Just(ZRLE), Just(-223), Just(-258)],
        0..4,
    );
    let encodings = encodings.prop_map(|encodings| {
        let numbers: Vec<u8> = encodings
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        [&[2, 0, 0, encodings.len() as u8][..], &numbers].concat()
    });
    let format = (any::<[u8; 16]>(), prop_oneof![Just(8), Just(16), Just(32)]).prop_map(
        |(mut format, bits)| {
            let big_endian = format[2];
            format[..4].copy_from_slice(&[bits, bits, big_endian, 1]);
            for max in [4, 6, 8] {
                let ones = (1_u16 << (1 + format[max] % 7)) - 1;
                format[max..max + 2].copy_from_slice(&ones.to_be_bytes());
            }
            [&[0; 4][..], &format].concat()
        },
    );
    let pointer = any::<[u8; 5]>().prop_map(|rest| [&[5][..], &rest].concat());
    let noise = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![4 => request, 2 => encodings, 2 => format, 2 => pointer, 1 => noise]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Anything, in any pieces, with the screen looked at in between and changing its size.
    #[test]
    fn anything_may_be_sent(
        greeted: bool,
        pieces in prop::collection::vec((piece(), 1..40_usize, any::<bool>(), 1..200_u16), 1..40),
    ) {
        let mut session = Session::new("web");
        if greeted {
            session.receive(b"RFB 003.008\n\x01\x01", ignore).unwrap();
        }
        for (bytes, split, read, size) in pieces {
            for part in bytes.chunks(split) {
                if session.receive(part, ignore).is_err() {
                    return Ok(());
                }
                prop_assert!(session.kept() < KEPT);
            }
            session.look(Screen::new(size, 200 - size + 1));
            if read {
                drain(&mut session);
            }
            prop_assert!(session.output().len() < 1 << 20);
        }
    }
}
