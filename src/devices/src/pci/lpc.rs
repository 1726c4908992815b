//! The ICH9 LPC bridge at 00:1f.0 (8086:2918): it decides where the power
//! management block is, and how the chipset's interrupt inputs are routed.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use super::PciFunction;
use super::config::{ConfigSpace, Header, register};
use super::placed::Placed;
use super::root::Address;
use crate::acpi_pm::{AcpiPm, PM_BLOCK_LENGTH};
use crate::bus::Bus;
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "pci-lpc-ich9";
/// I/O space, memory space and bus master.
const COMMAND: u16 = 0x07;
/// PMBASE (ICH9 datasheet, 13.1.13): bits 15:7, and a constant 1 for "I/O space".
const PMBASE: usize = 0x40;
const PMBASE_MASK: u32 = 0xff80;
/// ACPI_CNTL (13.1.14): bit 7 turns the block on.
const ACPI_CNTL: usize = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
/// PIRQA-D and PIRQE-H routing (13.1.16, 13.1.18).
const PIRQ_A: usize = 0x60;
const PIRQ_E: usize = 0x68;
const PIRQ_OFF: u8 = 0x80;
const PIRQ_MASK: u8 = 0x8f;
/// LPC_I/O_DEC and LPC_EN (13.1.19, 13.1.20): which legacy ranges are decoded; always all here.
const LPC_DECODE: usize = 0x80;

/// Where PIRQA to PIRQH go at the PICs, as registers PIRQx_ROUT have it: the input, with bit 7 set while one goes nowhere.
pub type PirqRouting = Arc<[AtomicU8; 8]>;

/// The LPC bridge.
pub struct Lpc {
    config: ConfigSpace,
    pm: Placed<AcpiPm>,
    routing: PirqRouting,
}

impl Lpc {
    /// Where it belongs.
    pub const ADDRESS: Address = Address::from_devfn(0x1f << 3);

    /// An LPC bridge that puts `pm` on `port_bus` at `pm_base` at power-on (as firmware would
    /// have set it; a multiple of 128, not 0), or leaves it off. `None` when the base cannot be.
    pub fn new(port_bus: &Arc<Bus>, pm: Arc<Mutex<AcpiPm>>, pm_base: Option<u16>) -> Option<Self> {
        let mut config = ConfigSpace::new(&Header {
            vendor: 0x8086,
            device: 0x2918,
            revision: 2,
            class: 0x06_01_00,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            multifunction: true,
        });
        let base = u32::from(pm_base.unwrap_or(0));
        if base & !PMBASE_MASK != 0 || pm_base == Some(0) {
            return None;
        }
        let enable = if pm_base.is_some() { ACPI_ENABLE } else { 0 };
        // It always decodes (13.1.3), and edk2 looks for devices behind it only when it says so.
        config.define(register::COMMAND, &COMMAND.to_le_bytes(), &[0; 2]);
        config.define(
            PMBASE,
            &(base | 1).to_le_bytes(),
            &PMBASE_MASK.to_le_bytes(),
        );
        config.define(ACPI_CNTL, &[enable], &[ACPI_ENABLE | 0x07]);
        config.define(PIRQ_A, &[PIRQ_OFF; 4], &[PIRQ_MASK; 4]);
        config.define(PIRQ_E, &[PIRQ_OFF; 4], &[PIRQ_MASK; 4]);
        config.define(LPC_DECODE, &[0; 4], &[0x77, 0x13, 0x0f, 0x3f]);
        let mut lpc = Self {
            config,
            pm: Placed::new(port_bus, pm),
            routing: Arc::new([const { AtomicU8::new(PIRQ_OFF) }; 8]),
        };
        lpc.sync();
        Some(lpc)
    }

    /// The first port of the power management block, if it is switched on.
    pub fn pm_base(&self) -> Option<u16> {
        let base = (self.config.u32(PMBASE) & PMBASE_MASK) as u16;
        let enabled = self.config.u16(ACPI_CNTL) & u16::from(ACPI_ENABLE) != 0;
        (enabled && base != 0).then_some(base)
    }

    /// Where interrupts of PCI functions go at the PICs; it follows the registers.
    pub fn routing(&self) -> PirqRouting {
        Arc::clone(&self.routing)
    }

    fn sync(&mut self) {
        let registers = [PIRQ_A, PIRQ_E].map(|first| self.config.u32(first).to_le_bytes());
        for (route, register) in self.routing.iter().zip(registers.as_flattened()) {
            route.store(*register, Ordering::Relaxed);
        }
        let base = self.pm_base().map(u64::from);
        self.pm.move_to(base.map(|base| (base, PM_BLOCK_LENGTH)));
    }
}

impl PciFunction for Lpc {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        self.sync();
    }
}

impl Device for Lpc {
    fn name(&self) -> &str {
        "pci-lpc"
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
