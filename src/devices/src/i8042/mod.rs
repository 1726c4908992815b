//! The keyboard controller at ports 0x60 and 0x64, with or without keyboard and mouse.
//!
//! # Without
//!
//! It is here for the reset line, which Linux and firmware pulse through it, and for the A20
//! gate. The machine description should not announce it (no `PNP0303`, FADT boot flag 8042 clear):
//! Linux then leaves it alone. A system that probes the ports all the same finds a working
//! controller at once (self test, command byte, port tests) with nothing plugged in: bytes
//! sent to a port are answered with "resend" and the time-out bit, as the controller does
//! when no device clocks them in, so nobody waits.
//!
//! # With
//!
//! [`I8042::with_devices`] plugs a PS/2 [keyboard](KeyboardHandle) into the first port and a PS/2
//! [mouse](MouseHandle) into the second, for guests that are used through a display. The machine
//! description should announce both (`PNP0303` with input 1, `PNP0F13` with input 12, FADT boot flag
//! 8042 set).
//!
//! Bytes take no time on the wires, so the next one is in the output buffer, and its
//! interrupt raised, as soon as the last was read. Both devices wait while the buffer is
//! full, and what they can hold meanwhile is bounded.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//! Controller".

mod command;
mod input;
mod key;
mod keyboard;
mod keysyms;
mod layout;
mod link;
mod motion;
mod mouse;
mod output;
mod scancodes;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

pub use self::input::{KeyboardHandle, MouseHandle};
pub use self::key::Key;
pub use self::layout::Stroke;
pub use self::motion::{
    BUTTON_BACK, BUTTON_FORWARD, BUTTON_LEFT, BUTTON_MIDDLE, BUTTON_RIGHT, MouseEvent,
};
use self::output::Devices;
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
/// Version of a state without devices: what every release reads.
const VERSION_BARE: u32 = 1;
/// Version of a state with devices.
const VERSION_DEVICES: u32 = 2;

const STATUS_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
/// The keyboard lock is open.
const STATUS_UNLOCKED: u8 = 1 << 4;
/// The byte in the output buffer is the auxiliary port's.
const STATUS_AUX: u8 = 1 << 5;
const STATUS_TIMEOUT: u8 = 1 << 6;

const CONTROL_KEYBOARD_IRQ: u8 = 1 << 0;
const CONTROL_AUX_IRQ: u8 = 1 << 1;
const CONTROL_SYSTEM: u8 = 1 << 2;
const CONTROL_KEYBOARD_OFF: u8 = 1 << 4;
const CONTROL_AUX_OFF: u8 = 1 << 5;
const CONTROL_TRANSLATE: u8 = 1 << 6;

/// The processor runs and A20 is open.
const OUTPUT_INITIAL: u8 = 0xc3;
const OUTPUT_RUN: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;
/// The levels of the two interrupts.
const OUTPUT_KEYBOARD_IRQ: u8 = 1 << 4;
const OUTPUT_AUX_IRQ: u8 = 1 << 5;

/// What a device answers that did not take a byte.
const RESEND: u8 = 0xfe;

/// The controller.
pub struct I8042 {
    power: Arc<dyn PowerControl>,
    keyboard_irq: DrivenLine,
    /// There only with devices.
    mouse_irq: Option<DrivenLine>,
    /// Devices hold back what they have to send.
    paused: bool,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    devices: Option<Devices>,
}

impl Registers {
    fn initial(devices: Option<Devices>) -> Self {
        Self {
            status: STATUS_UNLOCKED,
            control: CONTROL_KEYBOARD_OFF | CONTROL_AUX_OFF,
            output_port: OUTPUT_INITIAL,
            data: 0,
            pending: None,
            memory: vec![0; 32],
            devices,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.memory.len() != 32 {
            return Err(format!("{} bytes of memory", self.memory.len()));
        }
        match self.devices.as_ref().and_then(Devices::problem) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(()),
        }
    }
}

impl I8042 {
    /// A controller after power-on with nothing plugged in. The keyboard's interrupt is input 1,
    /// edge-triggered.
    pub fn new(power: Arc<dyn PowerControl>, keyboard_irq: Arc<dyn InterruptLine>) -> Self {
        Self {
            power,
            keyboard_irq: DrivenLine::new(keyboard_irq),
            mouse_irq: None,
            paused: false,
            registers: Registers::initial(None),
        }
    }

    /// A controller after power-on with a keyboard and a mouse. The mouse's interrupt is
    /// input 12, edge-triggered too.
    pub fn with_devices(
        power: Arc<dyn PowerControl>,
        keyboard_irq: Arc<dyn InterruptLine>,
        mouse_irq: Arc<dyn InterruptLine>,
    ) -> (Arc<Mutex<Self>>, KeyboardHandle, MouseHandle) {
        let mut bare = Self::new(power, keyboard_irq);
        bare.mouse_irq = Some(DrivenLine::new(mouse_irq));
        bare.registers = bare.power_on();
        let i8042 = Arc::new(Mutex::new(bare));
        let keyboard = KeyboardHandle::new(Arc::clone(&i8042));
        let mouse = MouseHandle::new(Arc::clone(&i8042));
        (i8042, keyboard, mouse)
    }

    /// Whether the A20 gate is open. For information: address line 20 is never cut here.
    pub fn a20(&self) -> bool {
        self.registers.output_port & OUTPUT_A20 != 0
    }

    fn power_on(&self) -> Registers {
        Registers::initial(self.mouse_irq.is_some().then(Devices::new))
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
        self.registers = self.power_on();
        self.update_irq();
    }

    /// What is typed from here on waits in the devices.
    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
        self.pump();
    }

    fn save(&self) -> DeviceState {
        let version = match self.registers.devices {
            Some(_) => VERSION_DEVICES,
            None => VERSION_BARE,
        };
        DeviceState::new(KIND, version, &self.registers)
    }

    /// Devices that the saved controller lacked are as after power-on.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let invalid = |problem| RestoreError::Invalid {
            kind: KIND,
            problem,
        };
        let mut registers: Registers = state.decode(KIND, VERSION_DEVICES)?;
        registers.check().map_err(invalid)?;
        let present = self.power_on().devices;
        if registers.devices.is_some() && present.is_none() {
            return Err(invalid("there is no keyboard and mouse here".to_owned()));
        }
        registers.devices = registers.devices.or(present);
        self.registers = registers;
        self.force_irq();
        Ok(())
    }
}
