//! Plugging PCI functions in and out while the guest runs, by ACPI (ACPI 6.5, 6.3).
//!
//! Bit `n` of each register stands for device `n` of bus 0; bit 0, which no device of ours has, for the whole bus.
//! Methods of the DSDT are the only driver:
//!
//! | offset | length | register |
//! | --- | --- | --- |
//! | [`UP`] | 4 | where the guest is to look, because something was plugged in; written ones become zero |
//! | [`DOWN`] | 4 | what the guest is to give up; written ones become zero |
//! | [`EJECT`] | 4 | written: what the guest has given up; reads zero |
//!
//! A bit that is set in `UP` or `DOWN` raises general purpose event [`EVENT`]. A guest can eject only what it was asked for, and only until
//! the wish is withdrawn: nobody loses a device that nobody wanted out.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::acpi_pm::AcpiPm;
use crate::bus::{BusDevice, read_doublewords, write_doublewords};
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};

/// First port: between the windows for ports of PCI functions.
pub const HOTPLUG_PORTS: u64 = 0xd80;
/// Number of ports.
pub const HOTPLUG_PORTS_LENGTH: u64 = 12;
/// Offset of the register that tells where to look.
pub const UP: u64 = 0;
/// Offset of the register that tells what to give up.
pub const DOWN: u64 = 4;
/// Offset of the register by which devices are given up.
pub const EJECT: u64 = 8;
/// The general purpose event.
pub const EVENT: u8 = 1;

/// Slots whose functions may come and go.
pub const HOTPLUG_SLOTS: std::ops::RangeInclusive<u8> = 1..=24;

const NAME: &str = "hotplug";
/// The bit that stands for the whole bus.
const BUS: u32 = 1;

/// Hears which slot the guest has given up, on a vCPU thread with the device's lock held.
pub type OnEject = Arc<dyn Fn(u8) + Send + Sync>;

/// The registers.
pub struct Hotplug {
    pm: Arc<Mutex<AcpiPm>>,
    on_eject: OnEject,
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    up: u32,
    down: u32,
    /// What the guest may eject.
    leaving: u32,
}

impl Hotplug {
    /// Registers with nothing to tell. Events are raised in `pm`.
    pub fn new(pm: Arc<Mutex<AcpiPm>>, on_eject: OnEject) -> Self {
        Self {
            pm,
            on_eject,
            state: State::default(),
        }
    }

    /// Tells the guest that something is in `slot` now.
    pub fn added(&mut self, slot: u8) {
        self.look_at(bit(slot));
    }

    /// Asks the guest to give up what is in `slot`; again, if it was asked before.
    pub fn ask(&mut self, slot: u8) {
        let bit = bit(slot);
        self.state.leaving |= bit;
        self.state.down |= bit;
        self.raise(bit);
    }

    /// Asks no longer. The guest is to look at what is there, in case it has let it go in the meantime. Tells whether it was
    /// still asked.
    pub fn withdraw(&mut self, slot: u8) -> bool {
        let bit = bit(slot);
        if self.state.leaving & bit == 0 {
            return false;
        }
        self.state.leaving &= !bit;
        self.state.down &= !bit;
        self.look_at(bit);
        true
    }

    /// Asks for nothing any longer. To be called after all devices are restored, where nobody waits for what was asked.
    pub fn withdraw_all(&mut self) {
        for slot in HOTPLUG_SLOTS {
            self.withdraw(slot);
        }
    }

    /// Tells the guest that what was in `slot` is gone, whether or not it was asked.
    pub fn gone(&mut self, slot: u8) {
        let bit = bit(slot);
        self.state.up &= !bit;
        self.state.down &= !bit;
        self.state.leaving &= !bit;
        // What is no longer there is noticed only by a look at all of the bus.
        self.look_at(BUS);
    }

    /// The slots the guest is asked to give up and has not.
    pub fn leaving(&self) -> Vec<u8> {
        let leaving = |slot: &u8| self.state.leaving & bit(*slot) != 0;
        HOTPLUG_SLOTS.filter(leaving).collect()
    }

    fn look_at(&mut self, bit: u32) {
        self.state.up |= bit;
        self.raise(bit);
    }

    fn raise(&self, bit: u32) {
        if bit != 0 {
            self.pm.lock().unwrap().raise_gpe(EVENT);
        }
    }

    fn eject(&mut self, bits: u32) {
        let bits = bits & self.state.leaving;
        self.state.leaving &= !bits;
        self.state.down &= !bits;
        self.state.up &= !bits;
        for slot in HOTPLUG_SLOTS.filter(|slot| bits & bit(*slot) != 0) {
            (self.on_eject)(slot);
        }
    }
}

/// The bit of a slot; none for those whose functions stay.
fn bit(slot: u8) -> u32 {
    if HOTPLUG_SLOTS.contains(&slot) {
        1 << slot
    } else {
        0
    }
}

/// All bits that are ever set.
fn mask() -> u32 {
    HOTPLUG_SLOTS.fold(BUS, |mask, slot| mask | bit(slot))
}

impl BusDevice for Hotplug {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let state = self.state;
        read_doublewords(offset, HOTPLUG_PORTS_LENGTH, data, |at| match at {
            UP => state.up,
            DOWN => state.down,
            _ => 0,
        });
    }

    /// Doublewords; what else there is to write is ignored.
    fn write(&mut self, offset: u64, data: &[u8]) {
        write_doublewords(offset, HOTPLUG_PORTS_LENGTH, data, |at, value| match at {
            UP => self.state.up &= !value,
            DOWN => self.state.down &= !value,
            EJECT => self.eject(value),
            _ => {}
        });
    }
}

impl Device for Hotplug {
    fn name(&self) -> &str {
        NAME
    }

    /// What was to leave has left by then; the next system finds what is there by itself.
    fn reset(&mut self) {
        self.state = State::default();
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(NAME, 1, &self.state)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let State { up, down, leaving } = state.decode(NAME, 1)?;
        let leaving = leaving & mask() & !BUS;
        self.state = State {
            up: up & mask(),
            down: down & leaving,
            leaving,
        };
        Ok(())
    }

    fn came_later(&self) -> bool {
        true
    }
}
