//! The MC146818 real-time clock and its 128 bytes of battery-backed memory, at ports 0x70 and 0x71.
//!
//! The clock shows the host's UTC time plus whatever difference the guest has set. No
//! interrupt is raised: registers of alarm and periodic interrupt hold what is written, and
//! the machine description should give the clock no interrupt, so that drivers poll.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::bus::ByteDevice;
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
}

/// Calendar fields of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calendar {
    year: i64,
    month: u8,
    day: u8,
    /// 1 is Sunday.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
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
        Self {
            clock,
            registers: Registers {
                index: 0,
                memory,
                offset: 0,
                held: None,
            },
        }
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
            // No interrupt flag is ever set.
            REGISTER_C => 0,
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
    }

    /// Stops the clock while the guest sets it (SET) or holds the divider, and starts it
    /// again from the time then set.
    fn hold_or_release(&mut self) {
        let running = self.get(REGISTER_A) & A_DIVIDER == A_RUNNING;
        let hold = self.get(REGISTER_B) & B_SET != 0 || !running;
        if hold && self.registers.held.is_none() {
            self.registers.held = Some(self.now());
        } else if !hold && let Some(time) = self.registers.held.take() {
            let host = i64::try_from(self.host_time().as_secs()).unwrap_or(i64::MAX);
            self.registers.offset = time.saturating_sub(host);
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

impl Calendar {
    /// Proleptic Gregorian calendar, days counted from 0000-03-01 in cycles of 400 years.
    fn from_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let of_day = seconds.rem_euclid(86_400);
        let shifted = days.saturating_add(719_468);
        let cycle = shifted.div_euclid(146_097);
        let of_cycle = shifted.rem_euclid(146_097);
        let of_cycle_years =
            (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
        let of_year = of_cycle - (365 * of_cycle_years + of_cycle_years / 4 - of_cycle_years / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Self {
            year: of_cycle_years + cycle * 400 + i64::from(month <= 2),
            month: month as u8,
            day: (of_year - (153 * march_month + 2) / 5 + 1) as u8,
            // 1970-01-01 was a Thursday.
            weekday: (days.saturating_add(4).rem_euclid(7) + 1) as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    fn to_seconds(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let cycle = year.div_euclid(400);
        let of_cycle_years = year.rem_euclid(400);
        let march_month = (i64::from(self.month) + 9) % 12;
        let of_year = (153 * march_month + 2) / 5 + i64::from(self.day) - 1;
        let of_cycle = of_cycle_years * 365 + of_cycle_years / 4 - of_cycle_years / 100 + of_year;
        let days = cycle * 146_097 + of_cycle - 719_468;
        let of_day =
            i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days * 86_400 + of_day
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
        self.registers.index = 0;
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
        if !sane.contains(&registers.offset) || registers.held.is_some_and(|t| !sane.contains(&t)) {
            return Err(RestoreError::Invalid {
                kind: KIND,
                problem: "the time is out of range".to_owned(),
            });
        }
        self.registers = registers;
        Ok(())
    }
}
