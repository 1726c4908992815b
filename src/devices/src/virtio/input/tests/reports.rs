//! What drivers hear of what happens.

use proptest::prelude::*;

use super::*;
use crate::i8042::{BUTTON_LEFT, BUTTON_RIGHT};

const UP: u32 = 0;
const DOWN: u32 = 1;

#[test]
fn a_report_tells_what_is_new_and_ends() {
    let mut rig = Rig::started(64);
    assert!(rig.handle.report(at(100, 200)));
    assert_eq!(rig.heard(), [(3, 0, 100), (3, 1, 200), SYN]);
    rig.handle.report(at(100, 300));
    assert_eq!(rig.heard(), [(3, 1, 300), SYN]);
    rig.handle.report(at(100, 300));
    assert_eq!(rig.heard(), [], "nothing has happened");
    rig.handle.report(Report {
        wheel: -1,
        buttons: BUTTON_LEFT | BUTTON_RIGHT,
        ..at(0, 300)
    });
    let pressed = [(1, 0x110, DOWN), (1, 0x111, DOWN)];
    let rest = [(2, 8, u32::MAX), SYN];
    assert_eq!(rig.heard(), [&[(3, 0, 0)][..], &pressed, &rest].concat());
    rig.handle.report(at(0, 300));
    assert_eq!(rig.heard(), [(1, 0x110, UP), (1, 0x111, UP), SYN]);
}

#[test]
fn what_no_tablet_does_is_bounded() {
    let mut rig = Rig::started(64);
    rig.handle.report(Report {
        wheel: i32::MIN,
        buttons: 0xff,
        ..at(u16::MAX, u16::MAX)
    });
    let heard = rig.heard();
    assert_eq!(heard[..2], [(3, 0, 0x7fff), (3, 1, 0x7fff)]);
    assert_eq!(heard.len(), 2 + 5 + 2);
    assert_eq!(heard[7], (2, 8, (-127_i32).cast_unsigned()));
}

#[test]
fn nobody_hears_without_a_driver() {
    let mut rig = Rig::new();
    assert!(!rig.handle.report(at(1, 1)));
    rig.offer(8);
    rig.start();
    assert!(rig.handle.report(at(2, 0)));
    assert_eq!(rig.heard(), [(3, 0, 2), SYN]);
    rig.device.deactivate();
    rig.device.reset();
    assert!(!rig.handle.report(at(3, 3)));
}

#[test]
fn a_report_waits_for_buffers_in_the_middle() {
    let mut rig = Rig::started(2);
    rig.handle.report(Report {
        buttons: BUTTON_LEFT,
        ..at(5, 6)
    });
    assert_eq!(rig.heard(), [(3, 0, 5), (3, 1, 6)]);
    rig.offer(64);
    rig.queues[EVENTS].kick();
    assert_eq!(rig.wait_event(), (1, 0x110, DOWN));
    assert_eq!(rig.wait_event(), SYN);
}

#[test]
fn a_slow_guest_hears_where_the_pointer_is_in_the_end_and_of_every_click() {
    let mut rig = Rig::started(0);
    for x in 1..=1000 {
        rig.handle.report(Report {
            wheel: 1,
            ..at(x, 0)
        });
    }
    let click = Report {
        buttons: BUTTON_LEFT,
        ..at(1000, 0)
    };
    rig.handle.report(click);
    rig.handle.report(at(1000, 0));
    rig.offer(64);
    rig.queues[EVENTS].kick();
    let expected = [
        (3, 0, 1000),
        (2, 8, 127),
        SYN,
        (1, 0x110, DOWN),
        SYN,
        (1, 0x110, UP),
        SYN,
    ];
    for event in expected {
        assert_eq!(rig.wait_event(), event);
    }
}

#[test]
fn status_is_taken_and_means_nothing() {
    let mut rig = Rig::started(4);
    rig.queues[STATUS].offer(&[readable(DATA, 8)]);
    rig.queues[STATUS].kick();
    assert_eq!(rig.queues[STATUS].wait_used().1, 0);
    assert!(!rig.events.broken());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever a guest misses, in the end it knows how things are.
    #[test]
    fn in_the_end_the_driver_knows(
        steps in prop::collection::vec((0..40_u16, 0..40_u16, 0..32_u8, 0..4_u64), 1..200),
    ) {
        let mut rig = Rig::started(1);
        let mut known = Report::default();
        let mut last = Report::default();
        let learn = |known: &mut Report, events: Vec<(u16, u16, u32)>| {
            for (kind, code, value) in events {
                match (kind, code) {
                    (3, 0) => known.x = value as u16,
                    (3, 1) => known.y = value as u16,
                    (1, code) => {
                        let button = 1 << (code - 0x110);
                        assert_eq!(known.buttons & button == 0, value == DOWN, "told twice");
                        known.buttons ^= button;
                    }
                    other => assert_eq!(other, (0, 0)),
                }
            }
        };
        for (x, y, buttons, buffers) in steps {
            last = Report { buttons, ..at(x, y) };
            rig.handle.report(last);
            let heard = rig.heard();
            learn(&mut known, heard);
            rig.offer(buffers);
        }
        // Another report makes it look for buffers.
        for _ in 0..64 {
            rig.offer(60);
            rig.handle.report(last);
            let heard = rig.heard();
            learn(&mut known, heard);
        }
        prop_assert_eq!(known, last);
    }
}
