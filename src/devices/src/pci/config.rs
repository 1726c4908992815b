//! Configuration space of one function: bytes, and what a guest may change in them.

use serde::{Deserialize, Serialize};

use super::CONFIG_BYTES;
use crate::state::{DeviceState, RestoreError};

/// Offsets in a type 0 header (PCI 3.0, 6.1).
pub(crate) mod register {
    pub const COMMAND: usize = 0x04;
    pub const STATUS: usize = 0x06;
    pub const CACHE_LINE: usize = 0x0c;
    pub const BAR0: usize = 0x10;
    pub const CAPABILITIES: usize = 0x34;
    pub const INTERRUPT_LINE: usize = 0x3c;
}

/// Command register bits.
pub(crate) mod command {
    pub const MEMORY: u16 = 1 << 1;
    pub const BUS_MASTER: u16 = 1 << 2;
    pub const PARITY: u16 = 1 << 6;
    pub const SERR: u16 = 1 << 8;
    pub const INTX_DISABLE: u16 = 1 << 10;
}

const STATUS_CAPABILITIES: u16 = 1 << 4;
const FIRST_CAPABILITY: usize = 0x40;

/// The fixed part of a type 0 header.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code as `0xCCSSPP`.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Whether functions 1 to 7 of the same device may exist.
    pub multifunction: bool,
}

/// 256 bytes with a write mask.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
    /// Bits a guest may set and clear.
    writable: [u8; CONFIG_BYTES],
    /// As at power-on.
    initial: [u8; CONFIG_BYTES],
    next_capability: usize,
    last_link: usize,
}

/// What of a configuration space a guest may have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState {
    bytes: Vec<u8>,
}

impl ConfigSpace {
    /// A type 0 header without BARs and capabilities.
    pub fn new(header: &Header) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            initial: [0; CONFIG_BYTES],
            next_capability: FIRST_CAPABILITY,
            last_link: register::CAPABILITIES,
        };
        let [prog_if, subclass, class, _] = header.class.to_le_bytes();
        space.set_u16(0x00, header.vendor);
        space.set_u16(0x02, header.device);
        space.define(0x08, &[header.revision, prog_if, subclass, class], &[0; 4]);
        space.define(0x0e, &[u8::from(header.multifunction) << 7], &[0]);
        space.set_u16(0x2c, header.subsystem_vendor);
        space.set_u16(0x2e, header.subsystem);
        let writable = command::MEMORY
            | command::BUS_MASTER
            | command::PARITY
            | command::SERR
            | command::INTX_DISABLE;
        space.define(register::COMMAND, &[0, 0], &writable.to_le_bytes());
        space.define(register::CACHE_LINE, &[0, 0], &[0xff, 0]);
        space.define(register::INTERRUPT_LINE, &[0], &[0xff]);
        space
    }

    /// Sets bytes at build time, with the bits a guest may change, as they are at power-on.
    ///
    /// # Panics
    /// When the lists differ in length or pass the end: a mistake in a device model.
    pub fn define(&mut self, offset: usize, bytes: &[u8], writable: &[u8]) {
        let range = offset..offset + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        self.initial[range.clone()].copy_from_slice(bytes);
        self.writable[range].copy_from_slice(writable);
    }

    fn set_u16(&mut self, offset: usize, value: u16) {
        self.define(offset, &value.to_le_bytes(), &[0; 2]);
    }

    /// Appends a capability at build time and returns its offset. `body` and `writable` begin
    /// after the two bytes of ID and link.
    ///
    /// # Panics
    /// When the space is full: a mistake in a device model.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let offset = self.next_capability;
        self.define(offset, &[id, 0], &[0; 2]);
        self.define(offset + 2, body, writable);
        self.define(self.last_link, &[offset as u8], &[0]);
        let status = self.u16(register::STATUS) | STATUS_CAPABILITIES;
        self.set_u16(register::STATUS, status);
        self.last_link = offset + 1;
        self.next_capability = (offset + 2 + body.len()).next_multiple_of(4);
        offset
    }

    /// Reads; bytes past the end are zero, as unimplemented registers are.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what a guest may change.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, value) in (offset..CONFIG_BYTES).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask) | (value & mask);
        }
    }

    /// The 16-bit register at `offset`.
    ///
    /// # Panics
    /// Past the end: a mistake in a device model.
    pub fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.bytes[offset], self.bytes[offset + 1]])
    }

    /// The 32-bit register at `offset`.
    ///
    /// # Panics
    /// Past the end: a mistake in a device model.
    pub fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// Whether the guest has memory decoding on.
    pub fn memory_enabled(&self) -> bool {
        self.u16(register::COMMAND) & command::MEMORY != 0
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }

    /// The present contents.
    pub fn save(&self) -> ConfigState {
        ConfigState {
            bytes: self.bytes.to_vec(),
        }
    }

    /// Takes over the writable bits of a saved space.
    ///
    /// # Errors
    /// When the state has another size or differs in bits no guest can change; nothing is
    /// changed then.
    pub fn restore(&mut self, state: &ConfigState) -> Result<(), String> {
        let Ok(bytes) = <[u8; CONFIG_BYTES]>::try_from(state.bytes.as_slice()) else {
            return Err(format!("config: {} bytes, not 256", state.bytes.len()));
        };
        for (at, &byte) in bytes.iter().enumerate() {
            if (byte ^ self.initial[at]) & !self.writable[at] != 0 {
                return Err(format!("config: read-only byte {at:#x} is {byte:#04x}"));
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// The state of a device that has no other.
    pub(super) fn save_device(&self, kind: &'static str) -> DeviceState {
        DeviceState::new(kind, 1, &self.save())
    }

    /// Takes back what [`ConfigSpace::save_device`] gave; on an error nothing is changed.
    pub(super) fn restore_device(
        &mut self,
        kind: &'static str,
        state: &DeviceState,
    ) -> Result<(), RestoreError> {
        self.restore(&state.decode(kind, 1)?)
            .map_err(|problem| RestoreError::Invalid { kind, problem })
    }
}
