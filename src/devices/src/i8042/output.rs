//! The output buffer: one byte for the guest, whoever it comes from, and its interrupts.
//!
//! The controller's own answers go first: a guest that has asked the controller expects the next
//! byte to be the answer, and could not tell a scan code from it. A device's byte that is in
//! the way steps aside and comes back afterwards. Then the keyboard has its turn, then the mouse.

use super::keyboard::{Keyboard, Sent};
use super::mouse::Mouse;
use super::scancodes::{RELEASE, translate};
use super::*;

/// In place of the high bit of the first set there is a prefix in the second.
const RELEASED: u8 = 0x80;

/// What is plugged in, and the controller's part of receiving from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Devices {
    pub keyboard: Keyboard,
    pub mouse: Mouse,
    /// The byte in the buffer is a device's.
    received: bool,
    /// A device's byte that made way for an answer.
    aside: Option<Received>,
    /// A release prefix was translated; the code comes next.
    release: bool,
}

/// A byte of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Received {
    byte: u8,
    aux: bool,
}

impl Devices {
    /// Devices after power-on.
    pub fn new() -> Self {
        Self {
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
            received: false,
            aside: None,
            release: false,
        }
    }

    /// The next byte, given the command byte.
    fn take(&mut self, control: u8) -> Option<Received> {
        if let Some(back) = self.aside.take() {
            return Some(back);
        }
        if control & CONTROL_KEYBOARD_OFF == 0
            && let Some(byte) = self.take_code(control & CONTROL_TRANSLATE != 0)
        {
            return Some(Received { byte, aux: false });
        }
        if control & CONTROL_AUX_OFF == 0 {
            let byte = self.mouse.take()?;
            return Some(Received { byte, aux: true });
        }
        None
    }

    /// The keyboard's next byte as the guest gets it. Ends, as each turn takes one off a bounded
    /// queue.
    fn take_code(&mut self, translated: bool) -> Option<u8> {
        loop {
            let sent = self.keyboard.take()?;
            match sent {
                Sent::Answer(byte) | Sent::Code(byte) if !translated => return Some(byte),
                Sent::Answer(byte) => return Some(translate(byte)),
                Sent::Code(RELEASE) => self.release = true,
                Sent::Code(byte) => {
                    let released = std::mem::take(&mut self.release);
                    return Some(translate(byte) | if released { RELEASED } else { 0 });
                }
            }
        }
    }

    /// What is impossible about saved devices.
    pub fn problem(&self) -> Option<&'static str> {
        self.keyboard.problem().or_else(|| self.mouse.problem())
    }
}

impl I8042 {
    /// An answer of the controller itself.
    pub(super) fn answer(&mut self, value: u8, status: u8) {
        let registers = &mut self.registers;
        if let Some(devices) = &mut registers.devices
            && std::mem::take(&mut devices.received)
            && registers.status & STATUS_FULL != 0
        {
            devices.aside = Some(Received {
                byte: registers.data,
                aux: registers.status & STATUS_AUX != 0,
            });
        }
        self.fill(value, status);
    }

    /// Drops bytes of devices that the guest has not read.
    pub(super) fn forget_received(&mut self) {
        if let Some(devices) = &mut self.registers.devices {
            devices.received = false;
            devices.aside = None;
            devices.release = false;
        }
    }

    pub(super) fn read_data(&mut self) -> u8 {
        let value = self.registers.data;
        self.registers.status &= !(STATUS_FULL | STATUS_TIMEOUT | STATUS_AUX);
        // The line falls before it rises for the next byte: that makes the edge.
        self.update_irq();
        self.pump();
        value
    }

    /// Takes the next byte from the devices if the buffer is empty.
    pub(super) fn pump(&mut self) {
        let registers = &mut self.registers;
        if registers.status & STATUS_FULL == 0
            && !self.paused
            && let Some(devices) = &mut registers.devices
            && let Some(received) = devices.take(registers.control)
        {
            devices.received = true;
            self.fill(received.byte, if received.aux { STATUS_AUX } else { 0 });
        }
        self.update_irq();
    }

    fn fill(&mut self, value: u8, status: u8) {
        let registers = &mut self.registers;
        registers.data = value;
        registers.status &= !(STATUS_TIMEOUT | STATUS_AUX);
        registers.status |= STATUS_FULL | status;
        self.update_irq();
    }

    pub(super) fn keyboard_irq_level(&self) -> bool {
        let registers = &self.registers;
        registers.status & (STATUS_FULL | STATUS_AUX) == STATUS_FULL
            && registers.control & CONTROL_KEYBOARD_IRQ != 0
    }

    pub(super) fn mouse_irq_level(&self) -> bool {
        let registers = &self.registers;
        registers.status & (STATUS_FULL | STATUS_AUX) == STATUS_FULL | STATUS_AUX
            && registers.control & CONTROL_AUX_IRQ != 0
    }

    pub(super) fn update_irq(&mut self) {
        self.keyboard_irq.set(self.keyboard_irq_level());
        let level = self.mouse_irq_level();
        if let Some(line) = &mut self.mouse_irq {
            line.set(level);
        }
    }

    /// Drives the lines whatever they were before.
    pub(super) fn force_irq(&mut self) {
        self.keyboard_irq.force(self.keyboard_irq_level());
        let level = self.mouse_irq_level();
        if let Some(line) = &mut self.mouse_irq {
            line.force(level);
        }
    }
}
