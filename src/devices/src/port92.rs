//! System control port A (0x92): the A20 gate and a reset, faster than by the keyboard controller.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::ByteDevice;
use crate::lifecycle::Device;
use crate::power::PowerControl;
use crate::state::{DeviceState, RestoreError};

/// The port.
pub const PORT_92: u64 = 0x92;
/// Number of ports.
pub const PORT_92_LENGTH: u64 = 1;

const KIND: &str = "port-92";
const RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;

/// The port. Address line 20 is never cut: the bit is kept for systems that read it back.
pub struct Port92 {
    power: Arc<dyn PowerControl>,
    value: u8,
}

#[derive(Serialize, Deserialize)]
struct State {
    value: u8,
}

impl Port92 {
    /// A port with A20 open, as it is on a machine that has always had it open.
    pub fn new(power: Arc<dyn PowerControl>) -> Self {
        Self { power, value: A20 }
    }
}

impl ByteDevice for Port92 {
    const LENGTH: u64 = PORT_92_LENGTH;

    fn read_byte(&mut self, _offset: u64) -> u8 {
        self.value
    }

    fn write_byte(&mut self, _offset: u64, value: u8) {
        let rising = value & !self.value & RESET != 0;
        self.value = value & (RESET | A20);
        if rising {
            self.power.reset();
        }
    }
}

impl Device for Port92 {
    fn name(&self) -> &str {
        KIND
    }

    fn reset(&mut self) {
        self.value = A20;
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &State { value: self.value })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let State { value } = state.decode(KIND, 1)?;
        self.value = value & (RESET | A20);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_machine::TestPower;

    #[test]
    fn resets_when_the_bit_rises_and_keeps_a20() {
        let power = TestPower::new();
        let mut port = Port92::new(power.clone());
        assert_eq!(port.read_byte(0), A20);
        // What firmware writes back after setting A20.
        port.write_byte(0, 0xfe);
        assert_eq!((port.read_byte(0), power.counts()), (A20, (0, 0)));
        port.write_byte(0, 1);
        port.write_byte(0, 1);
        assert_eq!(power.counts(), (1, 0));
        let state = port.save();
        port.reset();
        assert_eq!(port.read_byte(0), A20);
        port.restore(&state).unwrap();
        assert_eq!(port.read_byte(0), 1);
    }
}
