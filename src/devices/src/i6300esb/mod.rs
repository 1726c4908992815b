//! The watchdog of an Intel 6300ESB, 8086:25ab (datasheet 300641, chapter 15), for which Linux, the BSDs and others have drivers.
//!
//! A guest's driver starts it and reloads it again and again. When it no longer does, the count of the first stage runs out, then
//! that of the second, and then the monitor is told, which does what the guest's owner has chosen. Every change of a register of the memory
//! BAR is preceded by the writes of 80h and 86h to the reload register, so that a guest gone wild does not reload it by chance.
//!
//! What differs from the chip: the first stage raises neither interrupt nor SMI (its status bit is set); after the
//! second has run out with the output enabled the count stands still until the driver reloads it; the count of
//! no stage is shorter than a millisecond. Time counts only while the guest runs.

#[cfg(test)]
mod tests;
mod timer;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use nix::sys::timerfd::ClockId;
use serde::{Deserialize, Serialize};

pub use self::timer::Clock;
use self::timer::{Count, Stage, Timer};
use crate::bus::{Bus, BusDevice};
use crate::due::{self, Due, Moment, Waking};
use crate::event_loop::LoopHandle;
use crate::lifecycle::Device;
use crate::pci::{BarKind, Bars, ConfigSpace, ConfigState, Header, PciFunction};
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "watchdog-i6300esb";

/// The only BAR, and its size.
const BAR: usize = 0;
const BAR_BYTES: u64 = 16;

/// WDT Configuration Register (15.4.13): interrupt type, prescaler, output.
const CONFIG: usize = 0x60;
/// The count goes by 1 MHz, else by 1 kHz.
const CONFIG_FAST: u16 = 1 << 2;
/// The output is off: nothing happens in the end.
const CONFIG_OUTPUT_OFF: u16 = 1 << 5;
const CONFIG_WRITABLE: u16 = 0b11 | CONFIG_FAST | CONFIG_OUTPUT_OFF;
/// WDT Lock Register (15.4.14).
const LOCK: usize = 0x68;
/// The register stays as it is until the next reset.
const LOCKED: u8 = 1 << 0;
const ENABLED: u8 = 1 << 1;
/// Only the second stage counts, again and again.
const FREE_RUNNING: u8 = 1 << 2;

/// Offsets behind the BAR (15.5): Preload Value 1 and 2, General Interrupt Status, Reload.
const PRELOAD_1: u64 = 0x0;
const PRELOAD_2: u64 = 0x4;
const INTERRUPT_STATUS: u64 = 0x8;
const RELOAD: u64 = 0xc;
/// Preload values have 20 bits, all set at power-on.
const PRELOAD_MASK: u32 = 0xf_ffff;
/// Interrupt status: the first stage has run out. Cleared by writing 1.
const FIRST_STAGE_OVER: u32 = 1 << 0;
/// Reload: begin to count anew.
const RELOAD_NOW: u32 = 1 << 8;
/// Reload: the second stage has run out; stays over resets, cleared by writing 1.
const TIMED_OUT: u32 = 1 << 9;
/// What unlocks one write, written to Reload in this order.
const UNLOCK_FIRST: u32 = 0x80;
const UNLOCK_SECOND: u32 = 0x86;

/// Hears that the watchdog has expired, on the event loop with the device's lock held.
pub type OnExpiry = Arc<dyn Fn() + Send + Sync>;

/// The watchdog, a PCI function.
pub struct Watchdog {
    config: ConfigSpace,
    bars: Bars,
    registers: Registers,
    timer: Timer,
    on_expiry: OnExpiry,
    waking: Option<Waking>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    preload: [u32; 2],
    /// How many of the unlocking writes have come: 0 to 2.
    unlocked: u8,
    first_stage_over: bool,
    timed_out: bool,
}

impl Registers {
    fn at_power_on() -> Self {
        Self {
            preload: [PRELOAD_MASK; 2],
            unlocked: 0,
            first_stage_over: false,
            timed_out: false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    config: ConfigState,
    registers: Registers,
    /// What is being counted, if anything.
    count: Option<Count>,
}

impl Watchdog {
    /// A watchdog that stands still, whose count runs out on `events`. It goes on the bus by
    /// [`PciRoot::add`](crate::pci::PciRoot::add).
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(
        memory_bus: &Arc<Bus>,
        events: &LoopHandle,
        on_expiry: OnExpiry,
    ) -> io::Result<Arc<Mutex<Self>>> {
        let watchdog = Self::with_clock(memory_bus, timer::monotonic(), on_expiry)?;
        let waking = due::attach(&watchdog, ClockId::CLOCK_MONOTONIC, events)?;
        watchdog.lock().unwrap().waking = Some(waking);
        Ok(watchdog)
    }

    /// One that goes by another clock, and waits for nothing by itself.
    fn with_clock(
        memory_bus: &Arc<Bus>,
        clock: Clock,
        on_expiry: OnExpiry,
    ) -> io::Result<Arc<Mutex<Self>>> {
        let watchdog = Arc::new(Mutex::new(Self {
            config: config_space(),
            bars: Bars::new(memory_bus),
            registers: Registers::at_power_on(),
            timer: Timer::new(clock),
            on_expiry,
            waking: None,
        }));
        let myself: Weak<Mutex<Self>> = Arc::downgrade(&watchdog);
        let mut this = watchdog.lock().unwrap();
        let Self { config, bars, .. } = &mut *this;
        bars.add(config, BAR, BAR_BYTES, BarKind::Memory32, myself)
            .map_err(io::Error::other)?;
        drop(this);
        Ok(watchdog)
    }

    fn lock_register(&self) -> u8 {
        let [lock, _] = self.config.u16(LOCK).to_le_bytes();
        lock
    }

    /// Begins to count, as one does who enables or reloads it.
    fn restart(&mut self) {
        let free = self.lock_register() & FREE_RUNNING != 0;
        self.count(if free { Stage::Second } else { Stage::First });
    }

    fn count(&mut self, stage: Stage) {
        let preload = match stage {
            Stage::First => self.registers.preload[0],
            Stage::Second => self.registers.preload[1],
        };
        let fast = self.config.u16(CONFIG) & CONFIG_FAST != 0;
        self.timer.start(stage, timer::length(preload, fast));
        self.wake();
    }

    /// Has the event loop look when the count ends now.
    fn wake(&self) {
        if let Some(waking) = &self.waking {
            waking.wake();
        }
    }

    /// Goes on to what comes after a stage that has run out. It is for the event loop alone: a driver that reloads late, but
    /// before the loop has noticed, is in time.
    fn expire(&mut self) {
        match self.timer.take_expired() {
            None => {}
            Some(Stage::First) => {
                self.registers.first_stage_over = true;
                // From now, not from when it ran out: a monitor that stood still for longer than both gives its guest the second.
                self.count(Stage::Second);
            }
            Some(Stage::Second) => self.second_stage_over(),
        }
    }

    fn second_stage_over(&mut self) {
        if self.config.u16(CONFIG) & CONFIG_OUTPUT_OFF == 0 {
            self.registers.timed_out = true;
            (self.on_expiry)();
        } else if self.lock_register() & FREE_RUNNING != 0 {
            self.count(Stage::Second);
        }
    }

    fn write_reload(&mut self, value: u32) {
        if value & RELOAD_NOW != 0 && self.lock_register() & ENABLED != 0 {
            self.restart();
        }
        if value & TIMED_OUT != 0 {
            self.registers.timed_out = false;
        }
    }
}

fn config_space() -> ConfigSpace {
    let mut config = ConfigSpace::new(&Header {
        vendor: 0x8086,
        device: 0x25ab,
        revision: 0,
        class: 0x08_80_00,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        multifunction: false,
    });
    config.define(CONFIG, &[0; 2], &CONFIG_WRITABLE.to_le_bytes());
    config.define(LOCK, &[0], &[LOCKED | ENABLED | FREE_RUNNING]);
    config
}

impl Due for Watchdog {
    const WHAT: &'static str = "the watchdog";

    fn catch_up(&mut self) -> Option<Moment> {
        self.expire();
        self.timer.left().map(Moment::In)
    }
}

impl PciFunction for Watchdog {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        let before = self.lock_register();
        if offset & !3 == LOCK && before & LOCKED != 0 {
            return;
        }
        self.config.write(offset, data);
        self.bars.sync(&self.config);
        let after = self.lock_register();
        if after & ENABLED == 0 {
            self.timer.stop();
        } else if before & ENABLED == 0 {
            self.restart();
        }
    }

    fn bar_requests(&self) -> Vec<(usize, u64, BarKind)> {
        self.bars.requests()
    }

    fn set_bar(&mut self, index: usize, base: u64) {
        self.bars.set(&mut self.config, index, base);
        self.bars.sync(&self.config);
    }

    fn bar_ranges(&self) -> Vec<Range<u64>> {
        self.bars.ranges(&self.config)
    }
}

impl BusDevice for Watchdog {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let registers = &self.registers;
        let words = [
            registers.preload[0],
            registers.preload[1],
            u32::from(registers.first_stage_over) * FIRST_STAGE_OVER,
            u32::from(registers.timed_out) * TIMED_OUT,
        ];
        for (at, byte) in (offset..BAR_BYTES).zip(data) {
            let word = words[(at / 4) as usize];
            *byte = (word >> (at % 4 * 8)) as u8;
        }
    }

    /// Preload values take doublewords; the others any width up to that, at their own offset.
    fn write(&mut self, offset: u64, data: &[u8]) {
        if data.len() > 4 {
            return;
        }
        let mut word = [0; 4];
        word[..data.len()].copy_from_slice(data);
        let value = u32::from_le_bytes(word);
        let unlocked = std::mem::take(&mut self.registers.unlocked);
        match (offset, value, unlocked) {
            (RELOAD, UNLOCK_FIRST, _) => self.registers.unlocked = 1,
            (RELOAD, UNLOCK_SECOND, 1) => self.registers.unlocked = 2,
            (RELOAD, _, 2) => self.write_reload(value),
            (INTERRUPT_STATUS, ..) => {
                self.registers.first_stage_over &= value & FIRST_STAGE_OVER == 0;
            }
            (PRELOAD_1, _, 2) if data.len() == 4 => {
                self.registers.preload[0] = value & PRELOAD_MASK;
            }
            (PRELOAD_2, _, 2) if data.len() == 4 => {
                self.registers.preload[1] = value & PRELOAD_MASK;
            }
            _ => {}
        }
    }
}

impl Device for Watchdog {
    fn name(&self) -> &str {
        "watchdog"
    }

    fn reset(&mut self) {
        self.config.reset();
        self.bars.sync(&self.config);
        self.timer.stop();
        self.registers = Registers {
            // By which the system that boots next knows why.
            timed_out: self.registers.timed_out,
            ..Registers::at_power_on()
        };
    }

    fn pause(&mut self) {
        self.timer.pause();
        self.wake();
    }

    fn resume(&mut self) {
        self.timer.resume();
        self.wake();
    }

    fn save(&self) -> DeviceState {
        let state = State {
            config: self.config.save(),
            registers: self.registers.clone(),
            count: self.timer.count(),
        };
        DeviceState::new(KIND, 1, &state)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let State {
            config,
            registers,
            count,
        } = state.decode(KIND, 1)?;
        let kind = KIND;
        let invalid = |problem| RestoreError::Invalid { kind, problem };
        if count.as_ref().is_some_and(|count| !count.is_possible()) {
            return Err(invalid("count: longer than any preload value".to_owned()));
        }
        self.config.restore(&config).map_err(invalid)?;
        self.bars.sync(&self.config);
        self.registers = Registers {
            preload: registers.preload.map(|value| value & PRELOAD_MASK),
            unlocked: registers.unlocked.min(2),
            ..registers
        };
        self.timer.set(count);
        self.wake();
        Ok(())
    }
}
