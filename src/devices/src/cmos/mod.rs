//! The MC146818 real-time clock and its 128 bytes of battery-backed memory, at ports 0x70 and 0x71.
//!
//! The clock shows the host's UTC time plus whatever difference the guest has set. Alarm and
//! update interrupts (input 8 on a PC) are served on the event loop. The periodic interrupt is not: its
//! rate is kept, and it never comes. Nothing since the first local APIC has used it.

mod alarm;
mod calendar;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use self::alarm::Alarm;
use self::calendar::Calendar;
use crate::bus::ByteDevice;
use crate::event_loop::LoopHandle;
use crate::interrupt::InterruptLine;
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};

/// First port.
pub const CMOS_PORTS: u64 = 0x70;
/// Number of ports.
pub const CMOS_PORTS_LENGTH: u64 = 2;
/// Where the century is, for the FADT's `CENTURY`.
pub const CENTURY: u8 = 0x32;

const KIND: &str = "rtc-mc146818";
const BYTES: usize = 128;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// 32768 Hz time base, 1024 Hz periodic rate: what PC firmware sets.
const A_INITIAL: u8 = 0x26;
const A_UPDATE: u8 = 0x80;
/// Bits of the time base; only 010 lets the clock run.
const A_DIVIDER: u8 = 0x70;
const A_RUNNING: u8 = 0x20;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24H: u8 = 0x02;
const D_VALID: u8 = 0x80;
const PM: u8 = 0x80;
/// How long before a new second the update bit shows (MC146818 datasheet, "update cycle").
const UPDATE_NS: u32 = 244_000;

/// Reads the host's clock.
pub type Clock = Box<dyn Fn() -> SystemTime + Send>;

/// The clock and its memory.
pub struct Cmos {
    clock: Clock,
    registers: Registers,
    alarm: Option<Alarm>,
    paused: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Registers {
    index: u8,
    /// Everything but the time registers 0, 2, 4, 6 to 9 and the century.
    memory: Vec<u8>,
    /// Guest time less host time, in seconds.
    offset: i64,
    /// The time while the guest sets it or has stopped the clock, in seconds since 1970.
    #[serde(default)]
    held: Option<i64>,
    /// Flags of register C.
    #[serde(default)]
    flags: u8,
    /// The time when updates were last looked for.
    #[serde(default)]
    updated: i64,
}

impl Cmos {
    /// A clock that shows the host's UTC time.
    pub fn new() -> Self {
        Self::with_clock(Box::new(SystemTime::now))
    }

    /// A clock that shows another one's time.
    pub fn with_clock(clock: Clock) -> Self {
        let mut memory = vec![0; BYTES];
        memory[usize::from(REGISTER_A)] = A_INITIAL;
        memory[usize::from(REGISTER_B)] = B_24H;
        let mut cmos = Self {
            clock,
            registers: Registers {
                index: 0,
                memory,
                offset: 0,
                held: None,
                flags: 0,
                updated: 0,
            },
            alarm: None,
            paused: false,
        };
        cmos.registers.updated = cmos.now();
        cmos
    }

    /// Raises `irq` for alarms and updates, which `events` waits for.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn with_alarm(
        self,
        irq: Arc<dyn InterruptLine>,
        events: &LoopHandle,
    ) -> io::Result<Arc<Mutex<Self>>> {
        alarm::attach(self, irq, events)
    }

    /// Sets a byte of battery-backed memory (0x0e to 0x7f) as firmware expects it.
    pub fn set_memory(&mut self, index: u8, value: u8) {
        if (0x0e..BYTES as u8).contains(&index) && index != CENTURY {
            self.registers.memory[usize::from(index)] = value;
        }
    }

    fn host_time(&self) -> Duration {
        (self.clock)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    /// Guest time in seconds since 1970.
    fn now(&self) -> i64 {
        self.registers.held.unwrap_or_else(|| {
            let host = i64::try_from(self.host_time().as_secs()).unwrap_or(i64::MAX);
            host.saturating_add(self.registers.offset)
        })
    }

    fn get(&self, register: u8) -> u8 {
        self.registers.memory[usize::from(register) % BYTES]
    }

    fn read_register(&mut self, index: u8) -> u8 {
        match index {
            0x00 | 0x02 | 0x04 | 0x06..=0x09 | CENTURY => self.read_time(index),
            REGISTER_A => self.get(REGISTER_A) | self.update_bit(),
            REGISTER_C => self.take_flags(),
            REGISTER_D => D_VALID,
            _ => self.get(index),
        }
    }

    fn update_bit(&self) -> u8 {
        let left = 1_000_000_000 - self.host_time().subsec_nanos();
        if self.registers.held.is_none() && left <= UPDATE_NS {
            A_UPDATE
        } else {
            0
        }
    }

    fn write_register(&mut self, index: u8, value: u8) {
        match index {
            0x00 | 0x02 | 0x04 | 0x06..=0x09 | CENTURY => self.write_time(index, value),
            REGISTER_C | REGISTER_D => {}
            _ => {
                let value = if index == REGISTER_A {
                    value & !A_UPDATE
                } else {
                    value
                };
                self.registers.memory[usize::from(index) % BYTES] = value;
                if matches!(index, REGISTER_A | REGISTER_B) {
                    self.hold_or_release();
                }
            }
        }
        // What was waited for may be another moment now.
        self.alarm_changed();
    }

    /// Stops the clock while the guest sets it (SET) or holds the divider, and starts it
    /// again from the time then set.
    fn hold_or_release(&mut self) {
        let running = self.get(REGISTER_A) & A_DIVIDER == A_RUNNING;
        let hold = self.get(REGISTER_B) & B_SET != 0 || !running;
        if hold && self.registers.held.is_none() {
            self.note_updates();
            self.registers.held = Some(self.now());
        } else if !hold && let Some(time) = self.registers.held.take() {
            let host = i64::try_from(self.host_time().as_secs()).unwrap_or(i64::MAX);
            self.registers.offset = time.saturating_sub(host);
            self.registers.updated = time;
        }
    }

    fn read_time(&self, index: u8) -> u8 {
        let time = Calendar::from_seconds(self.now());
        match index {
            0x00 => self.encode(time.second),
            0x02 => self.encode(time.minute),
            0x04 => self.encode_hour(time.hour),
            0x06 => self.encode(time.weekday),
            0x07 => self.encode(time.day),
            0x08 => self.encode(time.month),
            0x09 => self.encode(time.year.rem_euclid(100) as u8),
            _ => self.encode(time.year.div_euclid(100).rem_euclid(100) as u8),
        }
    }

    fn write_time(&mut self, index: u8, value: u8) {
        let mut time = Calendar::from_seconds(self.now());
        let number = self.decode(value);
        match index {
            0x00 => time.second = number.min(59),
            0x02 => time.minute = number.min(59),
            0x04 => time.hour = self.decode_hour(value).min(23),
            // The weekday follows from the date.
            0x06 => return,
            0x07 => time.day = number.clamp(1, 31),
            0x08 => time.month = number.clamp(1, 12),
            0x09 => time.year = time.year - time.year.rem_euclid(100) + i64::from(number.min(99)),
            _ => time.year = i64::from(number.min(99)) * 100 + time.year.rem_euclid(100),
        }
        let seconds = time.to_seconds();
        if let Some(held) = &mut self.registers.held {
            *held = seconds;
        } else {
            let change = seconds.saturating_sub(self.now());
            self.registers.offset = self.registers.offset.saturating_add(change);
            self.registers.updated = seconds;
        }
    }

    fn encode(&self, value: u8) -> u8 {
        if self.get(REGISTER_B) & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.get(REGISTER_B) & B_BINARY != 0 {
            value
        } else {
            // At most 15 * 10 + 15.
            (value >> 4) * 10 + (value & 0xf)
        }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.get(REGISTER_B) & B_24H != 0 {
            return self.encode(hour);
        }
        let twelve = match hour % 12 {
            0 => 12,
            other => other,
        };
        self.encode(twelve) | if hour >= 12 { PM } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.get(REGISTER_B) & B_24H != 0 {
            return self.decode(value);
        }
        let hour = self.decode(value & !PM) % 12;
        hour + if value & PM != 0 { 12 } else { 0 }
    }
}

impl Default for Cmos {
    fn default() -> Self {
        Self::new()
    }
}

impl ByteDevice for Cmos {
    const LENGTH: u64 = CMOS_PORTS_LENGTH;

    fn read_byte(&mut self, offset: u64) -> u8 {
        match offset {
            1 => self.read_register(self.registers.index),
            // The index port is write-only.
            _ => 0xff,
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) {
        match offset {
            // Bit 7 masks NMIs, which nothing raises.
            0 => self.registers.index = value & 0x7f,
            _ => self.write_register(self.registers.index, value),
        }
    }
}

impl Device for Cmos {
    fn name(&self) -> &str {
        "cmos"
    }

    /// The battery keeps time and memory; only the interrupt enables go (MC146818, "RESET").
    fn reset(&mut self) {
        self.registers.memory[usize::from(REGISTER_B)] &= !0x78;
        self.registers.flags = 0;
        self.registers.index = 0;
        self.alarm_changed();
    }

    /// The host's clock goes on, but nothing is noted.
    fn pause(&mut self) {
        self.paused = true;
    }

    /// Notes what came up meanwhile.
    fn resume(&mut self) {
        self.paused = false;
        self.note_updates();
        self.alarm_changed();
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &self.registers)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let registers: Registers = state.decode(KIND, 1)?;
        if registers.memory.len() != BYTES || registers.index >= BYTES as u8 {
            return Err(RestoreError::Invalid {
                kind: KIND,
                problem: format!(
                    "{} bytes of memory, index {}",
                    registers.memory.len(),
                    registers.index
                ),
            });
        }
        // Beyond this span the calendar arithmetic could wrap.
        let year_10000 = 253_402_300_800;
        let sane = -year_10000..=year_10000;
        let times = [
            Some(registers.offset),
            Some(registers.updated),
            registers.held,
        ];
        if times.iter().flatten().any(|time| !sane.contains(time)) {
            return Err(RestoreError::Invalid {
                kind: KIND,
                problem: "the time is out of range".to_owned(),
            });
        }
        self.registers = registers;
        self.force_irq();
        Ok(())
    }
}
