//! The firmware configuration device of QEMU's PC machines ("fw_cfg"): named blobs that firmware reads, by
//! ports or by DMA, and a few that it writes.
//!
//! | port | width | what |
//! | --- | --- | --- |
//! | 0x510 | 2, write | selects an item, and its first byte |
//! | 0x511 | 1, read | the next byte of the item |
//! | 0x514 | 4 + 4, big endian | address of a DMA request; writing the low half starts it |
//!
//! The interface is described in QEMU's `docs/specs/fw_cfg`; SeaBIOS, edk2 (OVMF), GRUB and Linux
//! have drivers for it. Items with names are listed in item 0x19. Writing is by DMA only, as in every QEMU since 2.4.

mod dma;
mod items;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::GuestMemory;
use crate::bus::BusDevice;
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};
pub use items::{Items, Source, key};

/// First port.
pub const FW_CFG_PORTS: u64 = 0x510;
/// Number of ports.
pub const FW_CFG_PORTS_LENGTH: u64 = 12;

const KIND: &str = "fw-cfg";
const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;

/// What the DMA register reads as, which tells that it is there: "QEMU CFG".
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// The device.
pub struct FwCfg {
    memory: GuestMemory,
    items: Items,
    registers: Registers,
    /// The selected item as it was when it was selected.
    content: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Registers {
    selected: u16,
    offset: u64,
    /// High half of the DMA address, until the low half comes.
    dma_high: u32,
}

impl FwCfg {
    /// A device that serves `items` and reaches `memory` by DMA.
    pub fn new(memory: GuestMemory, items: Items) -> Self {
        let mut device = Self {
            memory,
            items,
            registers: Registers::default(),
            content: Vec::new(),
        };
        device.select(0);
        device
    }

    /// Takes the content anew: what depends on the chipset is right at that moment.
    fn select(&mut self, key: u16) {
        self.registers.selected = key;
        self.registers.offset = 0;
        self.content = self.items.content(key);
    }

    /// The bytes from the present offset, and goes past `length` of them.
    fn advance(&mut self, length: u64) -> &[u8] {
        let all = self.content.as_slice();
        let start =
            usize::try_from(self.registers.offset).map_or(all.len(), |at| at.min(all.len()));
        let count = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(all.len() - start);
        self.registers.offset = self.registers.offset.saturating_add(length);
        &all[start..start + count]
    }
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match (offset, data.len()) {
            // Past the end of an item come zeroes.
            (DATA, 1) => data[0] = self.advance(1).first().copied().unwrap_or(0),
            (DMA_HIGH..FW_CFG_PORTS_LENGTH, _) => {
                let at = (offset - DMA_HIGH) as usize;
                for (byte, value) in data.iter_mut().zip(&DMA_SIGNATURE[at..]) {
                    *byte = *value;
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (SELECTOR, &[a, b]) => self.select(u16::from_le_bytes([a, b])),
            (DMA_HIGH, &[a, b, c, d]) => self.registers.dma_high = u32::from_be_bytes([a, b, c, d]),
            (DMA_LOW, &[a, b, c, d]) => {
                let high = u64::from(std::mem::take(&mut self.registers.dma_high));
                let low = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.transfer(high << 32 | low);
            }
            _ => {}
        }
    }
}

impl Device for FwCfg {
    fn name(&self) -> &str {
        KIND
    }

    fn reset(&mut self) {
        self.registers = Registers::default();
        self.select(0);
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &self.registers)
    }

    /// The content of the selected item is taken anew: it must be restored after the chipset.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let registers: Registers = state.decode(KIND, 1)?;
        self.select(registers.selected);
        self.registers = registers;
        Ok(())
    }
}
