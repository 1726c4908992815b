//! The keyboard controller at ports 0x60 and 0x64, without a keyboard or mouse.
//!
//! It is here for the reset line, which Linux and firmware pulse through it, and for the A20
//! gate. The machine description should not announce it (no `PNP0303`, FADT boot flag 8042 clear):
//! Linux then leaves it alone. A system that probes the ports all the same finds a working
//! controller at once (self test, command byte, port tests) with nothing plugged in: bytes
//! sent to a port are answered with "resend" and the time-out bit, as the controller does
//! when no device clocks them in, so nobody waits.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::ByteDevice;
use crate::interrupt::{DrivenLine, InterruptLine};
use crate::lifecycle::Device;
use crate::power::PowerControl;
use crate::state::{DeviceState, RestoreError};

/// First port. The range covers 0x61 too, which is the in-kernel timer's
/// (`KVM_PIT_SPEAKER_DUMMY`) and does not reach a bus.
pub const I8042_PORTS: u64 = 0x60;
/// Number of ports, 0x60 to 0x64.
pub const I8042_PORTS_LENGTH: u64 = 5;

const KIND: &str = "keyboard-i8042";

const STATUS_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
/// The keyboard lock is open.
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_TIMEOUT: u8 = 1 << 6;

const CONTROL_KEYBOARD_IRQ: u8 = 1 << 0;
const CONTROL_SYSTEM: u8 = 1 << 2;
const CONTROL_KEYBOARD_OFF: u8 = 1 << 4;
const CONTROL_AUX_OFF: u8 = 1 << 5;

/// The processor runs and A20 is open.
const OUTPUT_INITIAL: u8 = 0xc3;
const OUTPUT_RUN: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;

/// What a device answers that did not take a byte.
const RESEND: u8 = 0xfe;

/// The controller.
pub struct I8042 {
    power: Arc<dyn PowerControl>,
    keyboard_irq: DrivenLine,
    registers: Registers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    status: u8,
    control: u8,
    output_port: u8,
    data: u8,
    /// A command that waits for its byte at port 0x60.
    #[serde(default)]
    pending: Option<u8>,
    /// The controller's memory, bytes 1 to 31 (commands 0x21 to 0x3f, 0x61 to 0x7f).
    memory: Vec<u8>,
}

impl Registers {
    fn initial() -> Self {
        Self {
            status: STATUS_UNLOCKED,
            control: CONTROL_KEYBOARD_OFF | CONTROL_AUX_OFF,
            output_port: OUTPUT_INITIAL,
            data: 0,
            pending: None,
            memory: vec![0; 32],
        }
    }
}

impl I8042 {
    /// A controller after power-on. The keyboard's interrupt is input 1, edge-triggered.
    pub fn new(power: Arc<dyn PowerControl>, keyboard_irq: Arc<dyn InterruptLine>) -> Self {
        Self {
            power,
            keyboard_irq: DrivenLine::new(keyboard_irq),
            registers: Registers::initial(),
        }
    }

    /// Whether the A20 gate is open. For information: address line 20 is never cut here.
    pub fn a20(&self) -> bool {
        self.registers.output_port & OUTPUT_A20 != 0
    }

    fn answer(&mut self, value: u8, status: u8) {
        let registers = &mut self.registers;
        registers.data = value;
        registers.status &= !STATUS_TIMEOUT;
        registers.status |= STATUS_FULL | status;
        self.update_irq();
    }

    fn irq_level(&self) -> bool {
        let registers = &self.registers;
        registers.status & STATUS_FULL != 0 && registers.control & CONTROL_KEYBOARD_IRQ != 0
    }

    fn update_irq(&mut self) {
        self.keyboard_irq.set(self.irq_level());
    }

    fn read_data(&mut self) -> u8 {
        self.registers.status &= !(STATUS_FULL | STATUS_TIMEOUT);
        self.update_irq();
        self.registers.data
    }

    fn command(&mut self, command: u8) {
        self.registers.status |= STATUS_COMMAND;
        self.registers.pending = None;
        match command {
            0x20 => self.answer(self.registers.control, 0),
            0x21..=0x3f => {
                let value = self.registers.memory[usize::from(command - 0x20)];
                self.answer(value, 0);
            }
            // Each takes a byte at the data port.
            0x60..=0x7f | 0xd1..=0xd4 => self.registers.pending = Some(command),
            0xa7 => self.registers.control |= CONTROL_AUX_OFF,
            0xa8 => self.registers.control &= !CONTROL_AUX_OFF,
            // No second port: its clock line is stuck.
            0xa9 => self.answer(0x01, 0),
            0xaa => {
                self.registers.status |= STATUS_SYSTEM;
                self.registers.control |= CONTROL_SYSTEM;
                self.answer(0x55, 0);
            }
            0xab => self.answer(0x00, 0),
            0xad => self.registers.control |= CONTROL_KEYBOARD_OFF,
            0xae => self.registers.control &= !CONTROL_KEYBOARD_OFF,
            0xd0 => self.answer(self.registers.output_port, 0),
            0xdd => self.registers.output_port &= !OUTPUT_A20,
            0xdf => self.registers.output_port |= OUTPUT_A20,
            // Pulses the output lines whose bit is clear; line 0 resets the processor.
            0xf0..=0xff if command & OUTPUT_RUN == 0 => self.power.reset(),
            _ => {}
        }
        self.update_irq();
    }

    fn write_data(&mut self, value: u8) {
        self.registers.status &= !STATUS_COMMAND;
        match self.registers.pending.take() {
            Some(0x60) => {
                self.registers.control = value;
                let system = if value & CONTROL_SYSTEM != 0 {
                    STATUS_SYSTEM
                } else {
                    0
                };
                self.registers.status = self.registers.status & !STATUS_SYSTEM | system;
            }
            Some(command @ 0x61..=0x7f) => {
                self.registers.memory[usize::from(command - 0x60)] = value;
            }
            Some(0xd1) => {
                self.registers.output_port = value | OUTPUT_RUN;
                if value & OUTPUT_RUN == 0 {
                    self.power.reset();
                }
            }
            // Writes to the output buffer, as if a device had sent the byte. Without a second
            // port there is one buffer only, which tells Linux that there is no mouse.
            Some(0xd2 | 0xd3) => self.answer(value, 0),
            _ => self.answer(RESEND, STATUS_TIMEOUT),
        }
        self.update_irq();
    }
}

impl ByteDevice for I8042 {
    const LENGTH: u64 = I8042_PORTS_LENGTH;

    fn read_byte(&mut self, offset: u64) -> u8 {
        match offset {
            0 => self.read_data(),
            4 => self.registers.status,
            _ => 0xff,
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) {
        match offset {
            0 => self.write_data(value),
            4 => self.command(value),
            _ => {}
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &str {
        "i8042"
    }

    fn reset(&mut self) {
        self.registers = Registers::initial();
        self.update_irq();
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &self.registers)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let registers: Registers = state.decode(KIND, 1)?;
        if registers.memory.len() != 32 {
            return Err(RestoreError::Invalid {
                kind: KIND,
                problem: format!("{} bytes of memory", registers.memory.len()),
            });
        }
        self.registers = registers;
        self.keyboard_irq.force(self.irq_level());
        Ok(())
    }
}
