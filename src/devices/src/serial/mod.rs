//! A 16550A UART (National Semiconductor PC16550D), register-exact.
//!
//! Sending takes no time: the transmitter is always empty. Received bytes are taken from the
//! console into the receive FIFO as the guest makes room, so input is never lost to an overrun; only a
//! guest that talks to itself in loopback can overrun the FIFO.

mod registers;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use self::registers::*;
use crate::bus::ByteDevice;
use crate::console::{Console, ConsoleSink, ConsoleSource};
use crate::interrupt::{DrivenLine, InterruptLine};
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};

/// Number of ports.
pub const SERIAL_PORTS_LENGTH: u64 = 8;
/// First port and interrupt input of COM1.
pub const COM1: (u64, u32) = (0x3f8, 4);
/// First port and interrupt input of COM2.
pub const COM2: (u64, u32) = (0x2f8, 3);

const KIND: &str = "uart-16550a";
const FIFO_BYTES: usize = 16;

/// One serial port.
pub struct Serial {
    name: String,
    irq: DrivenLine,
    sink: Arc<dyn ConsoleSink>,
    source: Arc<dyn ConsoleSource>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    divisor: u16,
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    /// Overrun, until the line status register is read.
    overrun: bool,
    /// The transmitter became empty and nobody has been told yet.
    empty_pending: bool,
    /// Modem status lines at the last read, for the change bits.
    modem_lines: u8,
    modem_changes: u8,
    receive: VecDeque<u8>,
}

impl State {
    fn initial() -> Self {
        Self {
            // 9600 baud.
            divisor: 12,
            interrupt_enable: 0,
            fifo_control: 0,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            overrun: false,
            empty_pending: false,
            modem_lines: MSR_CTS | MSR_DSR | MSR_DCD,
            modem_changes: 0,
            receive: VecDeque::new(),
        }
    }
}

impl Serial {
    /// A port after power-on, named e.g. `com1`, that speaks to `console`.
    pub fn with_console(
        name: &str,
        irq: Arc<dyn InterruptLine>,
        console: &Arc<Console>,
    ) -> Arc<Mutex<Self>> {
        let sink: Arc<dyn ConsoleSink> = Arc::clone(console) as _;
        let source: Arc<dyn ConsoleSource> = Arc::clone(console) as _;
        let serial = Arc::new(Mutex::new(Self::new(name, irq, sink, source)));
        let weak = Arc::downgrade(&serial);
        console.on_input(move || {
            if let Some(serial) = weak.upgrade() {
                serial.lock().unwrap().input_arrived();
            }
        });
        serial
    }

    /// A port after power-on. Whoever fills `source` calls [`Serial::input_arrived`].
    pub fn new(
        name: &str,
        irq: Arc<dyn InterruptLine>,
        sink: Arc<dyn ConsoleSink>,
        source: Arc<dyn ConsoleSource>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            irq: DrivenLine::new(irq),
            sink,
            source,
            state: State::initial(),
        }
    }

    /// Takes what has come in, as far as there is room.
    pub fn input_arrived(&mut self) {
        self.fill();
        self.update_irq();
    }

    fn fifo_enabled(&self) -> bool {
        self.state.fifo_control & FCR_ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.fifo_enabled() { FIFO_BYTES } else { 1 }
    }

    fn loopback(&self) -> bool {
        self.state.modem_control & MCR_LOOP != 0
    }

    fn fill(&mut self) {
        // In loopback the receiver is cut off from the line.
        if self.loopback() {
            return;
        }
        let mut buffer = [0; FIFO_BYTES];
        let room = self.capacity().saturating_sub(self.state.receive.len());
        let count = self.source.read(&mut buffer[..room]);
        self.state.receive.extend(&buffer[..count]);
    }

    fn divisor_latch(&self) -> bool {
        self.state.line_control & LCR_DIVISOR != 0
    }

    fn modem_lines(&self) -> u8 {
        if !self.loopback() {
            // Somebody is always at the other end.
            return MSR_CTS | MSR_DSR | MSR_DCD;
        }
        let outputs = self.state.modem_control;
        let wires = [
            (MCR_RTS, MSR_CTS),
            (MCR_DTR, MSR_DSR),
            (MCR_OUT1, MSR_RI),
            (MCR_OUT2, MSR_DCD),
        ];
        wires
            .iter()
            .filter(|(output, _)| outputs & output != 0)
            .fold(0, |lines, (_, input)| lines | input)
    }

    /// Notes changes of the modem lines in the change bits.
    fn note_modem_lines(&mut self) {
        let (before, now) = (self.state.modem_lines, self.modem_lines());
        let changed = before ^ now;
        // The ring indicator counts only when it falls.
        let counted = changed & !MSR_RI | before & changed & MSR_RI;
        self.state.modem_changes |= counted >> 4;
        self.state.modem_lines = now;
    }

    /// The pending interrupt of highest priority, as the low bits of the identification register.
    fn interrupt(&self) -> u8 {
        let enabled = |bit| self.state.interrupt_enable & bit != 0;
        if enabled(IER_LINE) && self.state.overrun {
            return IIR_LINE;
        }
        if enabled(IER_RECEIVE) && !self.state.receive.is_empty() {
            // Below the trigger level a character time-out comes after four character
            // times; no time passes here.
            return if self.state.receive.len() >= self.trigger_level() {
                IIR_RECEIVE
            } else {
                IIR_TIMEOUT
            };
        }
        if enabled(IER_EMPTY) && self.state.empty_pending {
            return IIR_EMPTY;
        }
        if enabled(IER_MODEM) && self.state.modem_changes != 0 {
            return IIR_MODEM;
        }
        IIR_NONE
    }

    fn trigger_level(&self) -> usize {
        if !self.fifo_enabled() {
            return 1;
        }
        [1, 4, 8, 14][usize::from(self.state.fifo_control >> 6)]
    }

    fn irq_level(&self) -> bool {
        // On a PC, OUT2 connects the interrupt; in loopback that pin is inactive.
        let connected = self.state.modem_control & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        connected && self.interrupt() != IIR_NONE
    }

    fn update_irq(&mut self) {
        self.irq.set(self.irq_level());
    }

    fn read_receive(&mut self) -> u8 {
        let byte = self.state.receive.pop_front().unwrap_or(0);
        if self.state.receive.is_empty() {
            self.fill();
        }
        byte
    }

    fn read_identification(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == IIR_EMPTY {
            self.state.empty_pending = false;
        }
        interrupt | if self.fifo_enabled() { IIR_FIFO } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        let mut status = LSR_HOLDING_EMPTY | LSR_IDLE;
        if !self.state.receive.is_empty() {
            status |= LSR_READY;
        }
        if std::mem::take(&mut self.state.overrun) {
            status |= LSR_OVERRUN;
        }
        status
    }

    fn transmit(&mut self, byte: u8) {
        if !self.loopback() {
            self.sink.write(&[byte]);
        } else if self.state.receive.len() < self.capacity() {
            self.state.receive.push_back(byte);
        } else {
            // The FIFO keeps what it has; without it, the new byte replaces the old.
            self.state.overrun = true;
            if !self.fifo_enabled() {
                self.state.receive[0] = byte;
            }
        }
        self.state.empty_pending = true;
    }

    fn write_interrupt_enable(&mut self, value: u8) {
        let value = value & IER_MASK;
        // Enabling the interrupt while the transmitter is empty raises it at once.
        if value & !self.state.interrupt_enable & IER_EMPTY != 0 {
            self.state.empty_pending = true;
        }
        self.state.interrupt_enable = value;
    }

    fn write_fifo_control(&mut self, value: u8) {
        // Switching the FIFOs empties them. The other bits count only while they are on.
        let switched = (value ^ self.state.fifo_control) & FCR_ENABLE != 0;
        if switched || value & (FCR_ENABLE | FCR_CLEAR_RECEIVE) == FCR_ENABLE | FCR_CLEAR_RECEIVE {
            self.state.receive.clear();
        }
        self.state.fifo_control = if value & FCR_ENABLE != 0 {
            value & (FCR_ENABLE | FCR_TRIGGER)
        } else {
            0
        };
        self.fill();
    }
}

impl ByteDevice for Serial {
    const LENGTH: u64 = SERIAL_PORTS_LENGTH;

    fn read_byte(&mut self, offset: u64) -> u8 {
        let [low, high] = self.state.divisor.to_le_bytes();
        let value = match offset {
            0 if self.divisor_latch() => low,
            1 if self.divisor_latch() => high,
            0 => self.read_receive(),
            1 => self.state.interrupt_enable,
            2 => self.read_identification(),
            3 => self.state.line_control,
            4 => self.state.modem_control,
            5 => self.read_line_status(),
            6 => self.modem_lines() | std::mem::take(&mut self.state.modem_changes),
            _ => self.state.scratch,
        };
        self.update_irq();
        value
    }

    fn write_byte(&mut self, offset: u64, value: u8) {
        let [low, high] = self.state.divisor.to_le_bytes();
        match offset {
            0 if self.divisor_latch() => self.state.divisor = u16::from_le_bytes([value, high]),
            1 if self.divisor_latch() => self.state.divisor = u16::from_le_bytes([low, value]),
            0 => self.transmit(value),
            1 => self.write_interrupt_enable(value),
            2 => self.write_fifo_control(value),
            3 => self.state.line_control = value,
            4 => {
                self.state.modem_control = value & MCR_MASK;
                self.note_modem_lines();
                self.fill();
            }
            // Line and modem status are read-only.
            5 | 6 => {}
            _ => self.state.scratch = value,
        }
        self.update_irq();
    }
}

impl Device for Serial {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self) {
        self.state = State::initial();
        self.update_irq();
    }

    /// Takes what was typed meanwhile.
    fn resume(&mut self) {
        self.input_arrived();
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &self.state)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let mut restored: State = state.decode(KIND, 1)?;
        if restored.receive.len() > FIFO_BYTES {
            return Err(RestoreError::Invalid {
                kind: KIND,
                problem: format!("{} bytes in the receive FIFO", restored.receive.len()),
            });
        }
        restored.interrupt_enable &= IER_MASK;
        restored.modem_control &= MCR_MASK;
        restored.fifo_control &= FCR_ENABLE | FCR_TRIGGER;
        restored.modem_changes &= 0x0f;
        restored.modem_lines &= 0xf0;
        self.state = restored;
        self.irq.force(self.irq_level());
        Ok(())
    }
}
