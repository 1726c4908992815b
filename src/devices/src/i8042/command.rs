//! What guests write: commands at port 0x64, and bytes at port 0x60 for the controller or a device.

use super::*;

impl I8042 {
    pub(super) fn command(&mut self, command: u8) {
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
            0xa9 => {
                // Without a second port its clock line is stuck.
                let stuck = self.registers.devices.is_none();
                self.answer(u8::from(stuck), 0);
            }
            0xaa => {
                self.registers.status |= STATUS_SYSTEM;
                self.registers.control |= CONTROL_SYSTEM;
                self.forget_received();
                self.answer(0x55, 0);
            }
            0xab => self.answer(0x00, 0),
            0xad => self.registers.control |= CONTROL_KEYBOARD_OFF,
            0xae => self.registers.control &= !CONTROL_KEYBOARD_OFF,
            // The input port: the keyboard lock is open.
            0xc0 if self.registers.devices.is_some() => self.answer(0x80, 0),
            0xd0 => self.answer(self.output_port(), 0),
            0xdd => self.registers.output_port &= !OUTPUT_A20,
            0xdf => self.registers.output_port |= OUTPUT_A20,
            // Pulses the output lines whose bit is clear; line 0 resets the processor.
            0xf0..=0xff if command & OUTPUT_RUN == 0 => self.power.reset(),
            _ => {}
        }
        self.pump();
    }

    pub(super) fn write_data(&mut self, value: u8) {
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
            // Writes to the output buffer, as if a device had sent the byte.
            Some(0xd2) => self.answer(value, 0),
            // Without a second port there is one buffer only, which tells Linux that there is
            // no mouse.
            Some(0xd3) => {
                let second = self.registers.devices.is_some();
                self.answer(value, if second { STATUS_AUX } else { 0 });
            }
            pending => self.send(pending == Some(0xd4), value),
        }
        self.pump();
    }

    /// Sends a byte to a device, which opens its port.
    fn send(&mut self, aux: bool, value: u8) {
        let Some(devices) = &mut self.registers.devices else {
            self.answer(RESEND, STATUS_TIMEOUT);
            return;
        };
        if aux {
            self.registers.control &= !CONTROL_AUX_OFF;
            devices.mouse.receive(value);
        } else {
            self.registers.control &= !CONTROL_KEYBOARD_OFF;
            devices.keyboard.receive(value);
        }
    }

    /// The output port, with the interrupts as they stand.
    fn output_port(&self) -> u8 {
        let stored = self.registers.output_port;
        if self.registers.devices.is_none() {
            return stored;
        }
        let level = |high, bit| if high { bit } else { 0 };
        stored & !(OUTPUT_KEYBOARD_IRQ | OUTPUT_AUX_IRQ)
            | level(self.keyboard_irq_level(), OUTPUT_KEYBOARD_IRQ)
            | level(self.mouse_irq_level(), OUTPUT_AUX_IRQ)
    }
}
