//! Configuration mechanism #1 (0xCF8, 0xCFC) and the reset control register between them (0xCF9).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::root::{Address, PciRoot};
use crate::bus::BusDevice;
use crate::lifecycle::Device;
use crate::power::PowerControl;
use crate::state::{DeviceState, RestoreError};

/// First port.
pub const CONFIG_PORTS: u64 = 0xcf8;
/// Number of ports.
pub const CONFIG_PORTS_LENGTH: u64 = 8;
/// The reset control register among them.
pub const RESET_CONTROL_PORT: u64 = 0xcf9;
/// A hard reset, written there.
pub const RESET_CONTROL_RESET: u8 = SYSTEM_RESET | RESET_CPU;

const KIND: &str = "pci-config-ports";
const ENABLE: u32 = 1 << 31;
/// Bits of the address register that exist: enable, bus, device, function, doubleword.
const ADDRESS_MASK: u32 = 0x80ff_fffc;
const SYSTEM_RESET: u8 = 1 << 1;
const RESET_CPU: u8 = 1 << 2;
/// SYS_RST, RST_CPU and FULL_RST (ICH9 datasheet, 13.7.5).
const RESET_MASK: u8 = 0x0e;

/// The eight ports at 0xCF8.
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    power: Arc<dyn PowerControl>,
    state: State,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    address: u32,
    reset_control: u8,
}

impl ConfigPorts {
    /// To be put at [`CONFIG_PORTS`] on the port bus.
    pub fn new(root: Arc<PciRoot>, power: Arc<dyn PowerControl>) -> Self {
        Self {
            root,
            power,
            state: State::default(),
        }
    }

    /// The bus, function and offset an access at data port `port` (4 to 7) reaches.
    fn target(&self, port: u64) -> Option<(u8, Address, usize)> {
        let address = self.state.address;
        if address & ENABLE == 0 {
            return None;
        }
        let [register, devfn, bus, _] = address.to_le_bytes();
        let offset = usize::from(register & 0xfc) + (port & 3) as usize;
        Some((bus, Address::from_devfn(devfn), offset))
    }

    fn write_reset_control(&mut self, value: u8) {
        let rising = value & !self.state.reset_control & RESET_CPU != 0;
        self.state.reset_control = value & RESET_MASK;
        if rising {
            self.power.reset();
        }
    }
}

/// How much of an access at `port` stays within the four data ports.
fn data_ports(port: u64, length: usize) -> usize {
    length.min((CONFIG_PORTS_LENGTH - port) as usize)
}

impl BusDevice for ConfigPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            0 if data.len() == 4 => data.copy_from_slice(&self.state.address.to_le_bytes()),
            1 if data.len() == 1 => data[0] = self.state.reset_control,
            4..8 => {
                let length = data_ports(offset, data.len());
                if let Some((bus, address, at)) = self.target(offset) {
                    self.root.config_read(bus, address, at, &mut data[..length]);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            // Only a doubleword reaches the address register; narrower accesses are ordinary I/O.
            (0, &[a, b, c, d]) => {
                self.state.address = u32::from_le_bytes([a, b, c, d]) & ADDRESS_MASK;
            }
            (1, &[value]) => self.write_reset_control(value),
            (4..8, _) => {
                let length = data_ports(offset, data.len());
                if let Some((bus, address, at)) = self.target(offset) {
                    self.root.config_write(bus, address, at, &data[..length]);
                }
            }
            _ => {}
        }
    }
}

impl Device for ConfigPorts {
    fn name(&self) -> &str {
        KIND
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &self.state)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let State {
            address,
            reset_control,
        } = state.decode(KIND, 1)?;
        self.state = State {
            address: address & ADDRESS_MASK,
            reset_control: reset_control & RESET_MASK,
        };
        Ok(())
    }
}
