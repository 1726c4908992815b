//! Pause, save, restore.

use super::*;
use crate::i8042::BUTTON_LEFT;

fn pressed(x: u16, y: u16) -> Report {
    Report {
        buttons: BUTTON_LEFT,
        ..at(x, y)
    }
}

#[test]
fn what_happens_during_a_pause_is_told_afterwards() {
    let mut rig = Rig::started(64);
    rig.handle.report(pressed(1, 2));
    rig.heard();
    let queues = rig.device.deactivate();
    assert_eq!(queues.len(), 2);
    assert!(rig.handle.report(at(1, 3)), "the driver is still there");
    rig.resume(queues);
    for event in [(3, 1, 3), (1, 0x110, 0), SYN] {
        assert_eq!(rig.wait_event(), event);
    }
}

#[test]
fn a_restored_device_goes_on_in_the_middle_of_a_report() {
    let mut rig = Rig::started(1);
    rig.device.write_config(0, &[0x11, 3]);
    rig.handle.report(pressed(7, 8));
    assert_eq!(rig.heard(), [(3, 0, 7)]);
    let queues = rig.device.deactivate();
    let state = rig.device.save();
    let mut device = Tablet::new(&rig.event_loop);
    device.restore(&state).unwrap();
    assert_eq!(device.save(), state);
    rig.handle = device.handle();
    rig.device = device;
    let mut selected = [0; 3];
    rig.device.read_config(0, &mut selected);
    assert_eq!(selected, [0x11, 3, 1]);
    rig.offer(8);
    rig.resume(queues);
    for event in [(3, 1, 8), (1, 0x110, 1), SYN] {
        assert_eq!(rig.wait_event(), event);
    }
    rig.handle.report(at(7, 8));
    assert_eq!(rig.wait_event(), (1, 0x110, 0));
}

#[test]
fn impossible_states_are_refused() {
    let mut rig = Rig::started(0);
    rig.handle.report(pressed(7, 8));
    rig.device.deactivate();
    let good = rig.device.save();
    for (path, value) in [
        ("/told/x", serde_json::json!(0x8000)),
        ("/told/wheel", serde_json::json!(1)),
        ("/waiting/0/y", serde_json::json!(0xffff)),
        ("/waiting/0/buttons", serde_json::json!(0x20)),
        ("/waiting/0/wheel", serde_json::json!(128)),
        ("/waiting", serde_json::json!(vec![at(1, 1); 65])),
        ("/selection", serde_json::json!(null)),
    ] {
        let mut bad = good.clone();
        *bad.body.pointer_mut(path).unwrap() = value;
        assert!(rig.device.restore(&bad).is_err(), "{path}");
        assert_eq!(rig.device.save(), good);
    }
    let mut later = good.clone();
    later.version += 1;
    assert!(rig.device.restore(&later).is_err());
}

#[test]
fn a_driver_that_starts_anew_knows_nothing() {
    let mut rig = Rig::started(64);
    rig.handle.report(pressed(1, 2));
    rig.another_driver();
    rig.offer(64);
    rig.start();
    assert_eq!(rig.heard(), []);
    rig.handle.report(pressed(1, 2));
    assert_eq!(rig.heard(), [(3, 0, 1), (3, 1, 2), (1, 0x110, 1), SYN]);
}
