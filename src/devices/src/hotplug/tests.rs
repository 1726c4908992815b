use proptest::prelude::*;

use super::*;
use crate::acpi_pm::GPE0;
use crate::test_machine::{TestLine, TestPower};

const NONE: Vec<u8> = Vec::new();

struct Rig {
    registers: Hotplug,
    pm: Arc<Mutex<AcpiPm>>,
    ejected: Arc<Mutex<Vec<u8>>>,
}

fn rig() -> Rig {
    let pm = Arc::new(Mutex::new(AcpiPm::new(TestLine::new(), TestPower::new())));
    let ejected = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&ejected);
    let on_eject = Arc::new(move |slot| hear.lock().unwrap().push(slot));
    Rig {
        registers: Hotplug::new(Arc::clone(&pm), on_eject),
        pm,
        ejected,
    }
}

impl Rig {
    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        self.registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.registers.write(offset, &value.to_le_bytes());
    }

    /// Whether the event was raised since the last call.
    fn raised(&mut self) -> bool {
        let mut pm = self.pm.lock().unwrap();
        let mut status = [0];
        pm.read(GPE0, &mut status);
        pm.write(GPE0, &status);
        status[0] & 1 << EVENT != 0
    }

    fn ejected(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ejected.lock().unwrap())
    }
}

#[test]
fn what_is_plugged_in_is_told() {
    let mut rig = rig();
    assert_eq!((rig.read(UP), rig.read(DOWN), rig.raised()), (0, 0, false));
    rig.registers.added(9);
    rig.registers.added(1);
    assert!(rig.raised());
    assert_eq!(rig.read(UP), 1 << 9 | 1 << 1);
    rig.write(UP, 1 << 9);
    assert_eq!((rig.read(UP), rig.raised()), (1 << 1, false));
    // A slot whose function stays.
    rig.registers.added(30);
    assert_eq!((rig.read(UP), rig.raised()), (1 << 1, false));
}

#[test]
fn a_guest_ejects_what_it_is_asked_for() {
    let mut rig = rig();
    rig.write(EJECT, u32::MAX);
    assert!(rig.ejected().is_empty());
    rig.registers.ask(9);
    assert!(rig.raised());
    assert_eq!((rig.read(DOWN), rig.registers.leaving()), (1 << 9, vec![9]));
    rig.write(DOWN, 1 << 9);
    assert_eq!((rig.read(DOWN), rig.registers.leaving()), (0, vec![9]));
    // Not told apart from the bits of devices that stay.
    rig.write(EJECT, 1 << 10);
    assert!(rig.ejected().is_empty());
    rig.write(EJECT, u32::MAX);
    assert_eq!((rig.ejected(), rig.registers.leaving()), (vec![9], NONE));
    rig.write(EJECT, u32::MAX);
    assert!(rig.ejected().is_empty(), "once");
    assert_eq!(rig.read(EJECT), 0);
}

#[test]
fn a_wish_that_is_withdrawn_is_not_fulfilled() {
    let mut rig = rig();
    rig.registers.ask(9);
    assert!(rig.registers.withdraw(9));
    assert!(!rig.registers.withdraw(9));
    rig.write(EJECT, 1 << 9);
    assert!(rig.ejected().is_empty());
    assert_eq!((rig.read(UP), rig.read(DOWN)), (1 << 9, 0));
    // Taken out all the same: the bus is looked at, since the slot would not say it.
    rig.registers.ask(9);
    assert!(rig.raised());
    rig.registers.gone(9);
    assert_eq!((rig.read(UP), rig.read(DOWN)), (BUS, 0));
    assert!(rig.raised());
    assert!(rig.registers.leaving().is_empty());
}

#[test]
fn pending_bits_are_saved_and_end_with_a_reset() {
    let mut rig = rig();
    rig.registers.added(1);
    rig.registers.ask(9);
    let saved = rig.registers.save();
    rig.registers.reset();
    assert_eq!((rig.read(UP), rig.registers.leaving()), (0, NONE));
    rig.registers.restore(&saved).unwrap();
    assert_eq!(rig.registers.save(), saved);
    rig.registers.withdraw_all();
    assert_eq!((rig.read(UP), rig.read(DOWN)), (1 << 9 | 1 << 1, 0));
    // From a stranger: bits that cannot be.
    let state = State {
        up: u32::MAX,
        down: u32::MAX,
        leaving: u32::MAX,
    };
    let forged = DeviceState::new(NAME, 1, &state);
    rig.registers.restore(&forged).unwrap();
    rig.write(EJECT, u32::MAX);
    assert_eq!(rig.ejected(), HOTPLUG_SLOTS.collect::<Vec<_>>());
    assert_eq!(rig.read(DOWN), 0);
}

proptest! {
    /// Whatever a guest writes: each slot is ejected at most once for each time it was asked for.
    #[test]
    fn anything_is_written(steps in proptest::collection::vec((0..4_u8, 0..40_u8, 0..16_u64, 1..9_usize, any::<u64>()), 0..200)) {
        let mut rig = rig();
        let mut asked = [0_u32; 64];
        for (what, slot, offset, width, value) in steps {
            match what {
                0 => {
                    rig.registers.ask(slot);
                    if HOTPLUG_SLOTS.contains(&slot) {
                        asked[usize::from(slot)] += 1;
                    }
                }
                1 => rig.registers.added(slot),
                2 => drop(rig.registers.withdraw(slot)),
                _ => rig.registers.write(offset, &value.to_le_bytes()[..width]),
            }
            let mut data = [0; 8];
            rig.registers.read(offset, &mut data[..width]);
            for slot in rig.ejected() {
                prop_assert!(asked[usize::from(slot)] > 0);
                asked[usize::from(slot)] = 0;
            }
        }
    }
}
