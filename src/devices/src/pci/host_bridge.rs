//! The memory controller hub at 00:00.0 (8086:29c0) and the ECAM window it maps.

use std::sync::{Arc, Mutex};

use super::PciFunction;
use super::config::{ConfigSpace, Header};
use super::placed::Placed;
use super::root::{Address, PciRoot};
use crate::bus::{Bus, BusDevice};
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "pci-host-bridge-q35";
/// PCIEXBAR (Q35 datasheet, 5.1.17): enable, length in bits 2:1, base from bit 26.
const PCIEXBAR: usize = 0x60;
const PCIEXBAR_ENABLE: u64 = 1;
/// Bits 35:26 of the base, the length and the enable bit.
const PCIEXBAR_MASK: u64 = 0xf_fc00_0007;
/// PAM0 to PAM6: which of the ROM ranges below 1 MiB are RAM. Kept for firmware that
/// reads back what it wrote; the monitor decides what is there.
const PAM: usize = 0x90;
const SMRAM: usize = 0x9d;

/// Where configuration space appears in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EcamWindow {
    /// First address, a multiple of the length.
    pub base: u64,
    /// 64, 128 or 256 MiB: 1 MiB for each of that many buses.
    pub length: u64,
}

impl EcamWindow {
    fn decode(value: u64) -> Option<Self> {
        let length = match value >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None,
        };
        let base = value & PCIEXBAR_MASK & !(length - 1);
        (value & PCIEXBAR_ENABLE != 0 && base != 0).then_some(Self { base, length })
    }

    fn encode(self) -> Option<u64> {
        let size = match self.length >> 20 {
            256 => 0,
            128 => 1,
            64 => 2,
            _ => return None,
        };
        let value = self.base | size << 1 | PCIEXBAR_ENABLE;
        (Self::decode(value) == Some(self)).then_some(value)
    }
}

/// The host bridge.
pub struct HostBridge {
    config: ConfigSpace,
    ecam: Placed<Ecam>,
}

impl HostBridge {
    /// Where it belongs.
    pub const ADDRESS: Address = Address::from_devfn(0);

    /// A host bridge whose ECAM window is `ecam` at power-on (as firmware would have set
    /// it), or off. `None` when the window cannot be expressed.
    pub fn new(
        root: Arc<PciRoot>,
        memory_bus: &Arc<Bus>,
        ecam: Option<EcamWindow>,
    ) -> Option<Self> {
        let mut config = ConfigSpace::new(&Header {
            vendor: 0x8086,
            device: 0x29c0,
            revision: 0,
            class: 0x06_00_00,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            multifunction: false,
        });
        let initial = match ecam {
            Some(window) => window.encode()?,
            None => 0,
        };
        config.define(
            PCIEXBAR,
            &initial.to_le_bytes(),
            &PCIEXBAR_MASK.to_le_bytes(),
        );
        config.define(PAM, &[0; 7], &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
        config.define(SMRAM, &[0x02], &[0x48]);
        let mut bridge = Self {
            config,
            ecam: Placed::new(memory_bus, Arc::new(Mutex::new(Ecam { root }))),
        };
        bridge.sync();
        Some(bridge)
    }

    /// Where configuration space appears at the moment.
    pub fn ecam(&self) -> Option<EcamWindow> {
        let low = u64::from(self.config.u32(PCIEXBAR));
        let high = u64::from(self.config.u32(PCIEXBAR + 4));
        EcamWindow::decode(low | high << 32)
    }

    fn sync(&mut self) {
        let place = self.ecam().map(|window| (window.base, window.length));
        self.ecam.move_to(place);
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        self.sync();
    }
}

impl Device for HostBridge {
    fn name(&self) -> &str {
        "pci-host-bridge"
    }

    fn reset(&mut self) {
        self.config.reset();
        self.sync();
    }

    fn save(&self) -> DeviceState {
        self.config.save_device(KIND)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        self.config.restore_device(KIND, state)?;
        self.sync();
        Ok(())
    }
}

/// Configuration space in memory: bus, device, function and register in the address.
struct Ecam {
    root: Arc<PciRoot>,
}

impl Ecam {
    fn target(offset: u64) -> (u8, Address, usize) {
        // The window is at most 256 MiB, so the bus number fits.
        let bus = (offset >> 20) as u8;
        let address = Address::from_devfn((offset >> 12) as u8);
        (bus, address, (offset & 0xfff) as usize)
    }
}

impl BusDevice for Ecam {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let (bus, address, at) = Self::target(offset);
        self.root.config_read(bus, address, at, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (bus, address, at) = Self::target(offset);
        self.root.config_write(bus, address, at, data);
    }
}
