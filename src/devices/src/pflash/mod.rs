//! A parallel NOR flash chip with Intel's command set, byte wide: where firmware keeps its variables.
//!
//! The guest reads it like memory until it writes a command; then reads see the status register until it asks for the array
//! again. Commands (Intel 28F640J datasheet, table "command bus-cycle definitions"): 0xff read array,
//! 0x70 read status, 0x50 clear status, 0x10 and 0x40 program the next byte written, 0x20 and 0xd0 erase a block.
//! As with QEMU's model, whose stock firmware is, clearing the status clears the ready bit too.
//!
//! What was programmed and erased is on stable storage when the guest asks for the array again: firmware does so after every
//! write it wants to rely on. If it could not be, the status says so.

#[cfg(test)]
mod tests;

use std::io;

use serde::{Deserialize, Serialize};

use crate::bus::BusDevice;
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};

/// Bytes erased at once.
pub const BLOCK: u64 = 4096;

const KIND: &str = "pflash-intel";

const READ_ARRAY: u8 = 0xff;
const READ_STATUS: u8 = 0x70;
const CLEAR_STATUS: u8 = 0x50;
const PROGRAM: u8 = 0x10;
const PROGRAM_ALTERNATE: u8 = 0x40;
const ERASE: u8 = 0x20;
const CONFIRM: u8 = 0xd0;

const STATUS_READY: u8 = 1 << 7;
const STATUS_ERASE_ERROR: u8 = 1 << 5;
const STATUS_PROGRAM_ERROR: u8 = 1 << 4;

/// The cells of a flash chip, and how the guest sees them. Implemented by the monitor.
pub trait Array: Send {
    /// Size in bytes, a multiple of [`BLOCK`].
    fn length(&self) -> u64;

    /// Copies cells from `offset`; the range is inside.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Sets cells from `offset`; the range is inside.
    fn write(&mut self, offset: u64, data: &[u8]);

    /// Makes what was written durable.
    ///
    /// # Errors
    /// From the host's storage.
    fn flush(&mut self) -> io::Result<()>;

    /// Whether the guest's reads find the cells without coming here (they then do not
    /// until this is undone). Its writes always come here.
    fn expose(&mut self, exposed: bool);
}

/// A chip.
pub struct Pflash {
    array: Box<dyn Array>,
    registers: Registers,
    /// Whether cells were changed since they were last made durable.
    dirty: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Array,
    Status,
    /// The next write is the byte to program.
    Program,
    /// The next write confirms.
    Erase,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Registers {
    mode: Mode,
    status: u8,
}

impl Pflash {
    /// A chip after power-on.
    pub fn new(mut array: Box<dyn Array>) -> Self {
        array.expose(true);
        Self {
            array,
            registers: Registers::default(),
            dirty: false,
        }
    }

    /// What the guest reads at the moment: cells or status.
    fn enter(&mut self, mode: Mode) {
        let (before, after) = (self.registers.mode == Mode::Array, mode == Mode::Array);
        self.registers.mode = mode;
        if before != after {
            self.array.expose(after);
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            READ_ARRAY => {
                self.make_durable();
                self.enter(Mode::Array);
            }
            READ_STATUS => self.enter(Mode::Status),
            CLEAR_STATUS => {
                self.registers.status = 0;
                self.enter(Mode::Array);
            }
            PROGRAM | PROGRAM_ALTERNATE => self.enter(Mode::Program),
            ERASE => self.enter(Mode::Erase),
            _ => {
                // A sequence error, as the datasheet has it.
                self.finish(STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR);
            }
        }
    }

    /// Programming clears bits; only erasing sets them.
    fn program(&mut self, offset: u64, data: &[u8]) {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.array.length() {
            self.finish(STATUS_PROGRAM_ERROR);
            return;
        }
        let mut cells = vec![0; data.len()];
        self.array.read(offset, &mut cells);
        for (cell, byte) in cells.iter_mut().zip(data) {
            *cell &= byte;
        }
        self.array.write(offset, &cells);
        self.dirty = true;
        self.finish(0);
    }

    fn erase(&mut self, offset: u64) {
        if offset < self.array.length() {
            self.array
                .write(offset / BLOCK * BLOCK, &[0xff; BLOCK as usize]);
            self.dirty = true;
            self.finish(0);
        } else {
            self.finish(STATUS_ERASE_ERROR);
        }
    }

    fn finish(&mut self, errors: u8) {
        self.registers.status |= STATUS_READY | errors;
        self.enter(Mode::Status);
    }

    fn make_durable(&mut self) {
        if !self.dirty {
            return;
        }
        match self.array.flush() {
            Ok(()) => self.dirty = false,
            Err(error) => {
                tracing::error!(%error, "firmware variables could not be written");
                self.registers.status |= STATUS_PROGRAM_ERROR;
            }
        }
    }
}

impl BusDevice for Pflash {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if self.registers.mode == Mode::Array {
            let left = self.array.length().saturating_sub(offset);
            let inside = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.array.read(offset, &mut data[..inside]);
        } else {
            data.fill(self.registers.status);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match self.registers.mode {
            Mode::Array | Mode::Status => self.command(data[0]),
            Mode::Program => self.program(offset, data),
            Mode::Erase if data[0] == CONFIRM => self.erase(offset),
            Mode::Erase => self.finish(STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR),
        }
    }
}

impl Device for Pflash {
    fn name(&self) -> &str {
        KIND
    }

    fn reset(&mut self) {
        self.make_durable();
        self.registers.status = 0;
        self.enter(Mode::Array);
    }

    fn pause(&mut self) {
        self.make_durable();
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &self.registers)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let Registers { mode, status } = state.decode(KIND, 1)?;
        self.registers.status = status;
        self.enter(mode);
        Ok(())
    }
}
