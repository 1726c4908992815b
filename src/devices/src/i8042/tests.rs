//! The controller with nothing plugged in.

mod controller;
mod guests;
mod keyboard;
mod machine;
mod mouse;
mod sweep;

use proptest::prelude::*;

use super::*;
use crate::bus::BusDevice;
use crate::test_machine::{TestLine, TestPower};

struct Rig {
    i8042: I8042,
    line: Arc<TestLine>,
    power: Arc<TestPower>,
}

fn rig() -> Rig {
    let (line, power) = (TestLine::new(), TestPower::new());
    Rig {
        i8042: I8042::new(power.clone(), line.clone()),
        line,
        power,
    }
}

impl Rig {
    fn get(&mut self, port: u64) -> u8 {
        let mut data = [0];
        self.i8042.read(port - I8042_PORTS, &mut data);
        data[0]
    }

    fn put(&mut self, port: u64, value: u8) {
        self.i8042.write(port - I8042_PORTS, &[value]);
    }

    /// The answer to a command, which must be there at once.
    fn ask(&mut self, command: u8) -> u8 {
        self.put(0x64, command);
        assert_eq!(self.get(0x64) & 1, 1, "command {command:#x} has no answer");
        self.get(0x60)
    }
}

#[test]
fn resets_the_machine() {
    let mut rig = rig();
    // Linux waits for the input buffer to be empty, then pulses line 0.
    assert_eq!(rig.get(0x64) & 2, 0);
    rig.put(0x64, 0xff);
    assert_eq!(rig.power.counts(), (0, 0));
    rig.put(0x64, 0xfe);
    assert_eq!(rig.power.counts(), (1, 0));
    rig.put(0x64, 0xd1);
    rig.put(0x60, 0xdf);
    assert_eq!(rig.power.counts(), (1, 0));
    rig.put(0x64, 0xd1);
    rig.put(0x60, 0xde);
    assert_eq!(rig.power.counts(), (2, 0));
}

#[test]
fn answers_a_probe_at_once() {
    let mut rig = rig();
    assert_eq!(rig.ask(0xaa), 0x55);
    assert_eq!(rig.get(0x64) & 5, 4, "self test passed, buffer empty");
    assert_eq!(rig.ask(0xab), 0);
    let control = rig.ask(0x20);
    rig.put(0x64, 0x60);
    rig.put(0x60, control ^ 0x10);
    assert_eq!(rig.ask(0x20), control ^ 0x10);
    // Linux looks for a mouse: the loop answers without the auxiliary bit, the test fails.
    rig.put(0x64, 0xd3);
    rig.put(0x60, 0x5a);
    assert_eq!(rig.get(0x64) & 0x21, 1);
    assert_eq!(rig.get(0x60), 0x5a);
    assert_eq!(rig.ask(0xa9), 0x01);
}

#[test]
fn has_no_keyboard() {
    let mut rig = rig();
    rig.put(0x64, 0x60);
    rig.put(0x60, 0x01);
    rig.put(0x60, 0xff);
    assert!(rig.line.high());
    assert_eq!(rig.get(0x64) & 0x41, 0x41, "an answer with time-out");
    assert_eq!(rig.get(0x60), 0xfe);
    assert!(!rig.line.high());
    assert_eq!(rig.get(0x64) & 0x41, 0);
}

#[test]
fn switches_a20() {
    let mut rig = rig();
    assert!(rig.i8042.a20());
    rig.put(0x64, 0xdd);
    assert!(!rig.i8042.a20());
    rig.put(0x64, 0xdf);
    assert!(rig.i8042.a20());
    rig.put(0x64, 0xd1);
    rig.put(0x60, 0x01);
    assert!(!rig.i8042.a20());
    assert_eq!(rig.ask(0xd0) & 0x03, 0x01);
}

#[test]
fn leaves_its_neighbours_alone() {
    let mut rig = rig();
    assert_eq!(
        (rig.get(0x61), rig.get(0x62), rig.get(0x63)),
        (0xff, 0xff, 0xff)
    );
    rig.put(0x61, 3);
    assert_eq!(rig.i8042.registers, Registers::initial(None));
}

#[test]
fn saves_and_restores() {
    let mut rig = rig();
    rig.put(0x64, 0x60);
    rig.put(0x60, 0x01);
    rig.put(0x64, 0x65);
    let saved = rig.i8042.save();
    assert_eq!(saved.version, 1, "as releases without devices wrote it");
    let mut other = tests::rig();
    other.i8042.restore(&saved).unwrap();
    other.put(0x60, 0x77);
    assert_eq!(other.ask(0x25), 0x77);
    other.i8042.reset();
    assert_eq!(other.i8042.registers, Registers::initial(None));
    let mut bad = saved.clone();
    bad.body["memory"] = serde_json::json!([]);
    assert!(other.i8042.restore(&bad).is_err());
}

proptest! {
    #[test]
    fn survives_anything(steps in proptest::collection::vec((any::<bool>(), 0..6_u64, any::<[u8; 8]>(), 1..9_usize), 0..300)) {
        let mut rig = rig();
        for (write, offset, data, width) in steps {
            if write {
                rig.i8042.write(offset, &data[..width]);
            } else {
                rig.i8042.read(offset, &mut { data }[..width]);
            }
            prop_assert_eq!(rig.line.high(), rig.i8042.keyboard_irq_level());
        }
        let saved = rig.i8042.save();
        tests::rig().i8042.restore(&saved).unwrap();
    }
}
