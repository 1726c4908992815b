//! What a driver reads before it starts, in the way Linux does.

use super::*;

/// Selects, and reads size and answer.
fn answer(rig: &mut Rig, select: u8, subsel: u8) -> Vec<u8> {
    rig.device.write_config(0, &[select]);
    rig.device.write_config(1, &[subsel]);
    let mut size = [0];
    rig.device.read_config(2, &mut size);
    let mut answer = vec![0; 128];
    rig.device.read_config(8, &mut answer);
    assert!(answer[usize::from(size[0])..].iter().all(|byte| *byte == 0));
    answer.truncate(size[0].into());
    answer
}

#[test]
fn a_driver_learns_what_a_tablet_is() {
    let mut rig = Rig::new();
    for (select, subsel, expected) in [
        (0x01, 0, &b"Lodge Tablet"[..]),
        (0x03, 0, &[6, 0, 0, 0, 1, 0, 1, 0]),
        // Buttons 0x110 to 0x114, REL_WHEEL, ABS_X and ABS_Y.
        (0x11, 2, &[0, 1]),
        (0x11, 3, &[3]),
    ] {
        assert_eq!(answer(&mut rig, select, subsel), expected);
    }
    let keys = answer(&mut rig, 0x11, 1);
    assert_eq!((keys.len(), keys[34]), (35, 0x1f));
    assert!(keys[..34].iter().all(|byte| *byte == 0));
    for axis in [0, 1] {
        let range = answer(&mut rig, 0x12, axis);
        assert_eq!(range[..8], [0, 0, 0, 0, 0xff, 0x7f, 0, 0]);
        assert_eq!((range.len(), &range[8..]), (20, &[0; 12][..]));
    }
}

#[test]
fn everything_else_is_not_there() {
    let mut rig = Rig::new();
    let there = [
        (0x01, 0),
        (0x03, 0),
        (0x11, 1),
        (0x11, 2),
        (0x11, 3),
        (0x12, 0),
        (0x12, 1),
    ];
    for select in 0..=u8::MAX {
        for subsel in 0..=u8::MAX {
            let found = answer(&mut rig, select, subsel);
            assert_eq!(!found.is_empty(), there.contains(&(select, subsel)));
        }
    }
}

#[test]
fn any_access_is_taken() {
    let mut rig = Rig::new();
    for offset in (0..140).chain([u64::MAX - 1, u64::MAX]) {
        for width in [1, 2, 4, 8, 64] {
            rig.device.write_config(offset, &vec![0xff; width]);
            let mut data = vec![0; width];
            rig.device.read_config(offset, &mut data);
        }
    }
    // What is selected can be read back, and is nothing after a reset.
    let mut both = [0; 2];
    rig.device.write_config(0, &[0x11, 3]);
    rig.device.read_config(0, &mut both);
    assert_eq!(both, [0x11, 3]);
    rig.device.reset();
    rig.device.read_config(0, &mut both);
    assert_eq!(both, [0, 0]);
}
