//! The port at which a guest's system says that it has crashed (QEMU, `docs/specs/pvpanic.rst`).
//!
//! The guest goes on: its crash kernel may be writing a dump. What is to be done is for people to decide. Of each
//! kind of crash one is told until the next reset, however often the guest writes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::ByteDevice;
use crate::lifecycle::Device;
use crate::power::PowerControl;
use crate::state::{DeviceState, RestoreError};

/// The port.
pub const PVPANIC_PORT: u64 = 0x505;
/// Number of ports.
pub const PVPANIC_PORT_LENGTH: u64 = 1;

const KIND: &str = "pvpanic";

/// The system has crashed, and does nothing about it but what it was told to.
pub const PVPANIC_PANICKED: u8 = 1 << 0;
/// The system has crashed, and its crash kernel takes over.
const CRASH_LOADED: u8 = 1 << 1;
/// The system is done and wants the power cut, where ACPI is not at hand.
const SHUTDOWN: u8 = 1 << 2;
/// What is told once.
const TOLD: u8 = PVPANIC_PANICKED | CRASH_LOADED;

/// What the guest says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panic {
    /// Its system crashed.
    Final,
    /// Its system crashed, and a crash kernel takes over.
    CrashKernel,
}

/// Hears of crashes, on a vCPU thread with the device's lock held.
pub type OnPanic = Arc<dyn Fn(Panic) + Send + Sync>;

/// The port.
pub struct PvPanic {
    power: Arc<dyn PowerControl>,
    on_panic: OnPanic,
    told: u8,
}

#[derive(Serialize, Deserialize)]
struct State {
    told: u8,
}

impl PvPanic {
    /// A port at which nothing was said.
    pub fn new(power: Arc<dyn PowerControl>, on_panic: OnPanic) -> Self {
        Self {
            power,
            on_panic,
            told: 0,
        }
    }

    fn tell(&mut self, bit: u8, panic: Panic) {
        if self.told & bit == 0 {
            self.told |= bit;
            (self.on_panic)(panic);
        }
    }
}

impl ByteDevice for PvPanic {
    const LENGTH: u64 = PVPANIC_PORT_LENGTH;

    /// What may be said.
    fn read_byte(&mut self, _offset: u64) -> u8 {
        PVPANIC_PANICKED | CRASH_LOADED | SHUTDOWN
    }

    fn write_byte(&mut self, _offset: u64, value: u8) {
        if value & CRASH_LOADED != 0 {
            self.tell(CRASH_LOADED, Panic::CrashKernel);
        }
        if value & PVPANIC_PANICKED != 0 {
            self.tell(PVPANIC_PANICKED, Panic::Final);
        }
        if value & SHUTDOWN != 0 {
            self.power.power_off();
        }
    }
}

impl Device for PvPanic {
    fn name(&self) -> &str {
        KIND
    }

    fn reset(&mut self) {
        self.told = 0;
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &State { told: self.told })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let State { told } = state.decode(KIND, 1)?;
        self.told = told & TOLD;
        Ok(())
    }

    fn came_later(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::test_machine::TestPower;

    struct Rig {
        port: PvPanic,
        power: Arc<TestPower>,
        heard: Arc<Mutex<Vec<Panic>>>,
    }

    fn rig() -> Rig {
        let (power, heard) = (TestPower::new(), Arc::new(Mutex::new(Vec::new())));
        let hear = Arc::clone(&heard);
        let on_panic = Arc::new(move |panic| hear.lock().unwrap().push(panic));
        let port = PvPanic::new(power.clone(), on_panic);
        Rig { port, power, heard }
    }

    impl Rig {
        fn heard(&self) -> Vec<Panic> {
            std::mem::take(&mut self.heard.lock().unwrap())
        }
    }

    #[test]
    fn a_crash_is_told_once_until_the_next_reset() {
        let mut rig = rig();
        assert_eq!(rig.port.read_byte(0), 7);
        for _ in 0..1000 {
            rig.port.write_byte(0, 0xf9);
        }
        assert_eq!(rig.heard(), [Panic::Final]);
        rig.port.write_byte(0, CRASH_LOADED);
        assert_eq!(rig.heard(), [Panic::CrashKernel]);
        // Restored: it was told where it was saved.
        let saved = rig.port.save();
        let mut other = tests::rig();
        other.port.restore(&saved).unwrap();
        other.port.write_byte(0, PVPANIC_PANICKED | CRASH_LOADED);
        assert_eq!(other.heard(), []);
        other.port.reset();
        other.port.write_byte(0, PVPANIC_PANICKED | CRASH_LOADED);
        assert_eq!(other.heard(), [Panic::CrashKernel, Panic::Final]);
        assert_eq!(rig.power.counts(), (0, 0));
    }

    #[test]
    fn power_is_cut_when_it_is_asked_for() {
        let mut rig = rig();
        rig.port.write_byte(0, SHUTDOWN);
        assert_eq!((rig.heard(), rig.power.counts()), (vec![], (0, 1)));
    }
}
