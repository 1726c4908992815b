//! Features (NVM Express 1.4, 5.14 and 5.21).

use serde::{Deserialize, Serialize};

use crate::nvme::command::{Command, Status};
use crate::nvme::shared::Shared;

mod feature {
    pub const ARBITRATION: u8 = 0x01;
    pub const POWER: u8 = 0x02;
    pub const TEMPERATURE: u8 = 0x04;
    pub const ERROR_RECOVERY: u8 = 0x05;
    pub const WRITE_CACHE: u8 = 0x06;
    pub const QUEUES: u8 = 0x07;
    pub const COALESCING: u8 = 0x08;
    pub const VECTOR: u8 = 0x09;
    pub const ATOMICITY: u8 = 0x0a;
    pub const EVENTS: u8 = 0x0b;
}

/// Bit of command doubleword 10 of Set Features.
const SAVE: u32 = 1 << 31;
/// Bit of the vector configuration: interrupts are not gathered.
const NOT_GATHERED: u32 = 1 << 16;
/// Bits 21:20 of the temperature feature: which threshold. Bits 19:16: which sensor, 0 the whole.
const THRESHOLD_SHIFT: u32 = 20;
const SENSOR: u32 = 0xf << 16;
const ALL_SENSORS: u32 = 0xf << 16;

/// What a driver has set. Interrupts are never gathered, queues served in turn and sensors always cool, whatever
/// is set for these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::nvme) struct Features {
    arbitration: u32,
    /// Highest and lowest temperature in kelvins.
    thresholds: [u16; 2],
    /// How long to try before an error, in 100 ms.
    error_recovery: u16,
    write_cache: bool,
    coalescing: u16,
    /// Vectors whose interrupts are not gathered.
    not_gathered: u32,
    atomicity: bool,
    events: u32,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            arbitration: 0,
            thresholds: [u16::MAX, 0],
            error_recovery: 0,
            write_cache: true,
            coalescing: 0,
            not_gathered: 0,
            atomicity: false,
            events: 0,
        }
    }
}

impl Features {
    pub fn write_cache(&self) -> bool {
        self.write_cache
    }

    /// Which notices the driver wants to hear.
    pub fn wanted_notices(&self) -> u32 {
        self.events
    }

    /// Sets a feature; `queues` if there are queues for data already.
    pub fn set(&mut self, command: &Command, shared: &Shared, queues: bool) -> Result<u32, Status> {
        if command.word(10) & SAVE != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        let value = command.word(11);
        match command.word(10) as u8 {
            feature::ARBITRATION => self.arbitration = value,
            // There is one power state.
            feature::POWER if value & 0x1f == 0 => {}
            feature::TEMPERATURE => *self.threshold(value)? = value as u16,
            // Errors of blocks without content cannot be had.
            feature::ERROR_RECOVERY if value >> 16 == 0 => self.error_recovery = value as u16,
            feature::WRITE_CACHE => self.write_cache = value & 1 != 0,
            feature::QUEUES => return set_queues(value, shared, queues),
            feature::COALESCING => self.coalescing = value as u16,
            feature::VECTOR => {
                let bit = vector(value, shared)?;
                self.not_gathered &= !bit;
                if value & NOT_GATHERED != 0 {
                    self.not_gathered |= bit;
                }
            }
            feature::ATOMICITY => self.atomicity = value & 1 != 0,
            feature::EVENTS => self.events = value,
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(0)
    }

    /// The value of a feature.
    pub fn get(&self, command: &Command, shared: &Shared) -> Result<u32, Status> {
        let wish = command.word(11);
        Ok(match command.word(10) as u8 {
            feature::ARBITRATION => self.arbitration,
            feature::POWER => 0,
            feature::TEMPERATURE => (*self.clone().threshold(wish)?).into(),
            feature::ERROR_RECOVERY => self.error_recovery.into(),
            feature::WRITE_CACHE => self.write_cache.into(),
            feature::QUEUES => queues(shared),
            feature::COALESCING => self.coalescing.into(),
            feature::VECTOR => {
                let set = self.not_gathered & vector(wish, shared)? != 0;
                wish & 0xffff | if set { NOT_GATHERED } else { 0 }
            }
            feature::ATOMICITY => self.atomicity.into(),
            feature::EVENTS => self.events,
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    fn threshold(&mut self, value: u32) -> Result<&mut u16, Status> {
        let which = (value >> THRESHOLD_SHIFT & 3) as usize;
        let whole = matches!(value & SENSOR, 0 | ALL_SENSORS);
        self.thresholds
            .get_mut(which)
            .filter(|_| whole)
            .ok_or(Status::INVALID_FIELD)
    }
}

/// The bit of an interrupt vector, of which there are a few.
fn vector(value: u32, shared: &Shared) -> Result<u32, Status> {
    let vector = value & 0xffff;
    if vector >= u32::from(shared.msix.count()) {
        return Err(Status::INVALID_FIELD);
    }
    Ok(1 << vector)
}

/// How many queues there are, less one, for submission and for completion.
fn queues(shared: &Shared) -> u32 {
    let last = u32::from(shared.options.queues - 1);
    last << 16 | last
}

/// The driver gets what there is, however many it asks for.
fn set_queues(value: u32, shared: &Shared, exist: bool) -> Result<u32, Status> {
    if exist {
        return Err(Status::SEQUENCE_ERROR);
    }
    if value as u16 == u16::MAX || value >> 16 == u32::from(u16::MAX) {
        return Err(Status::INVALID_FIELD);
    }
    Ok(queues(shared))
}
