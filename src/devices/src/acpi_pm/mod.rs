//! The ACPI power management block of an ICH9: PM1 events and control, the PM timer, GPE0.
//!
//! Where it answers is decided by the LPC bridge ([`crate::pci::Lpc`]).
//! Offsets in the block (ICH9 datasheet, 13.8.3), which belong in the FADT:
//!
//! | offset | length | FADT field |
//! | --- | --- | --- |
//! | [`PM1_EVENT`] | 4 | `PM1a_EVT_BLK`: status, then enable |
//! | [`PM1_CONTROL`] | 2 | `PM1a_CNT_BLK` |
//! | [`PM_TIMER`] | 4 | `PM_TMR_BLK`: 3.579545 MHz, 32 bits wide (`TMR_VAL_EXT`) |
//! | [`GPE0`] | [`GPE0_LENGTH`] | `GPE0_BLK`: status, then enable |
//!
//! There is no SMI: `SMI_CMD` is 0 and `SCI_EN` reads 1 always. `SMI_EN` (offset 0x30) says that writes to the
//! APM port raise SMIs already, by which stock firmware knows that it need not set up system management mode. The system control
//! interrupt is level-triggered and active high; on a PC it is input 9.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::bus::BusDevice;
use crate::interrupt::{DrivenLine, InterruptLine};
use crate::lifecycle::Device;
use crate::power::PowerControl;
use crate::state::{DeviceState, RestoreError};

/// Length of the block in bytes.
pub const PM_BLOCK_LENGTH: u64 = 0x80;
/// Offset of the PM1a event block.
pub const PM1_EVENT: u64 = 0x00;
/// Offset of the PM1a control block.
pub const PM1_CONTROL: u64 = 0x04;
/// Offset of the PM timer.
pub const PM_TIMER: u64 = 0x08;
/// Offset of the GPE0 block.
pub const GPE0: u64 = 0x20;
/// Length of the GPE0 block in bytes, half status, half enable: events 0 to 63.
pub const GPE0_LENGTH: u64 = 16;
/// `SLP_TYP` of S5 ("soft off") for the DSDT's `_S5`. Stock firmware for Q35 under a hypervisor
/// writes this value, which is why it is not the 7 of a real ICH9.
pub const SLP_TYP_S5: u8 = 0;

const KIND: &str = "acpi-pm-ich9";
/// Ticks of the PM timer per second.
const TIMER_HZ: u128 = 3_579_545;

/// PM1 status bits that exist: timer, bus master, global lock, power button, RTC, wake.
const PM1_STATUS_MASK: u16 = TIMER_STATUS | 1 << 4 | 1 << 5 | POWER_BUTTON | 1 << 10 | 1 << 15;
/// PM1 enable bits that exist: timer, global lock, power button, RTC.
const PM1_ENABLE_MASK: u16 = TIMER_STATUS | 1 << 5 | POWER_BUTTON | 1 << 10;
const TIMER_STATUS: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;
const SCI_ENABLE: u16 = 1 << 0;
/// PM1 control bits that are kept: bus master reload and the sleep type.
const PM1_CONTROL_MASK: u16 = 1 << 1 | 7 << 10;
const SLEEP_ENABLE: u16 = 1 << 13;
/// `SMI_EN` with `APMC_EN`.
const SMI_ENABLE: u64 = 1 << 5;

/// The power management block.
pub struct AcpiPm {
    sci: DrivenLine,
    power: Arc<dyn PowerControl>,
    /// When the timer read `timer_base`.
    epoch: Instant,
    /// Ticks while paused.
    stopped: Option<u64>,
    registers: Registers,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Registers {
    pm1_status: u16,
    pm1_enable: u16,
    pm1_control: u16,
    gpe0_status: u64,
    gpe0_enable: u64,
    /// Timer ticks at `epoch`.
    timer_base: u64,
    /// The timer's top bit when its status was last looked at.
    timer_top: bool,
}

impl AcpiPm {
    /// A block with its timer running from 0.
    pub fn new(sci: Arc<dyn InterruptLine>, power: Arc<dyn PowerControl>) -> Self {
        Self {
            sci: DrivenLine::new(sci),
            power,
            epoch: Instant::now(),
            stopped: None,
            registers: Registers::default(),
        }
    }

    /// Presses and releases the power button. An operating system that listens shuts down.
    pub fn press_power_button(&mut self) {
        self.registers.pm1_status |= POWER_BUTTON;
        self.update_sci();
    }

    /// Raises general purpose event `number`, 0 to 63.
    pub fn raise_gpe(&mut self, number: u8) {
        if let Some(bit) = 1_u64.checked_shl(number.into()) {
            self.registers.gpe0_status |= bit;
            self.update_sci();
        }
    }

    fn ticks(&self) -> u64 {
        self.stopped.unwrap_or_else(|| {
            let elapsed = self.epoch.elapsed().as_nanos() * TIMER_HZ / 1_000_000_000;
            // Overflows after 160 thousand years.
            self.registers.timer_base.wrapping_add(elapsed as u64)
        })
    }

    /// Notes a change of the timer's top bit, which sets `TMR_STS`. It is noticed
    /// when the guest looks; nothing interrupts at that moment, as every system polls the timer.
    fn note_timer(&mut self) {
        let top = self.ticks() >> 31 & 1 != 0;
        if top != self.registers.timer_top {
            self.registers.timer_top = top;
            self.registers.pm1_status |= TIMER_STATUS;
        }
    }

    fn sci_level(&self) -> bool {
        let registers = &self.registers;
        registers.pm1_status & registers.pm1_enable != 0
            || registers.gpe0_status & registers.gpe0_enable != 0
    }

    fn update_sci(&mut self) {
        self.sci.set(self.sci_level());
    }

    fn byte(&self, offset: u64, ticks: u64) -> u8 {
        let registers = &self.registers;
        let pick = |value: u64, base: u64| (value >> ((offset - base) * 8)) as u8;
        match offset {
            0x00..0x02 => pick(registers.pm1_status.into(), 0x00),
            0x02..0x04 => pick(registers.pm1_enable.into(), 0x02),
            0x04..0x06 => pick((registers.pm1_control | SCI_ENABLE).into(), 0x04),
            0x08..0x0c => pick(ticks, 0x08),
            0x20..0x28 => pick(registers.gpe0_status, 0x20),
            0x28..0x30 => pick(registers.gpe0_enable, 0x28),
            0x30..0x34 => pick(SMI_ENABLE, 0x30),
            _ => 0,
        }
    }

    fn set_byte(&mut self, offset: u64, value: u8) {
        let registers = &mut self.registers;
        let place = |base: u64| u64::from(value) << ((offset - base) * 8);
        let lane = |base: u64| 0xff_u64 << ((offset - base) * 8);
        match offset {
            0x00..0x02 => registers.pm1_status &= !(place(0x00) as u16),
            0x02..0x04 => {
                let kept = registers.pm1_enable & !(lane(0x02) as u16);
                registers.pm1_enable = (kept | place(0x02) as u16) & PM1_ENABLE_MASK;
            }
            0x04..0x06 => {
                let kept = registers.pm1_control & !(lane(0x04) as u16);
                let written = place(0x04) as u16;
                registers.pm1_control = (kept | written) & PM1_CONTROL_MASK;
                if written & SLEEP_ENABLE != 0 {
                    self.sleep();
                }
            }
            0x20..0x28 => registers.gpe0_status &= !place(0x20),
            0x28..0x30 => {
                registers.gpe0_enable = registers.gpe0_enable & !lane(0x28) | place(0x28);
            }
            _ => {}
        }
    }

    fn sleep(&self) {
        let kind = (self.registers.pm1_control >> 10 & 7) as u8;
        if kind == SLP_TYP_S5 {
            self.power.power_off();
        } else {
            tracing::debug!(kind, "guest wants a sleep state that does not exist");
        }
    }
}

impl BusDevice for AcpiPm {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.note_timer();
        let ticks = self.ticks();
        for (at, byte) in (offset..PM_BLOCK_LENGTH).zip(data) {
            *byte = self.byte(at, ticks);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.note_timer();
        for (at, byte) in (offset..PM_BLOCK_LENGTH).zip(data) {
            self.set_byte(at, *byte);
        }
        self.update_sci();
    }
}

impl Device for AcpiPm {
    fn name(&self) -> &str {
        "acpi-pm"
    }

    fn reset(&mut self) {
        // The timer goes on: it is not reset on hardware either, and is only ever compared.
        self.registers = Registers {
            timer_base: self.registers.timer_base,
            timer_top: self.registers.timer_top,
            ..Registers::default()
        };
        self.update_sci();
    }

    fn pause(&mut self) {
        self.stopped = Some(self.ticks());
    }

    fn resume(&mut self) {
        if let Some(ticks) = self.stopped.take() {
            self.registers.timer_base = ticks;
            self.epoch = Instant::now();
        }
    }

    fn save(&self) -> DeviceState {
        let registers = Registers {
            timer_base: self.ticks(),
            ..self.registers.clone()
        };
        DeviceState::new(KIND, 1, &registers)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let mut registers: Registers = state.decode(KIND, 1)?;
        registers.pm1_status &= PM1_STATUS_MASK;
        registers.pm1_enable &= PM1_ENABLE_MASK;
        registers.pm1_control &= PM1_CONTROL_MASK;
        self.stopped = Some(registers.timer_base);
        self.registers = registers;
        self.sci.force(self.sci_level());
        Ok(())
    }
}
