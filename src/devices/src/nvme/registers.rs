//! The controller's registers (NVM Express 1.4, 3.1) but for doorbells.

use serde::{Deserialize, Serialize};

use super::MOST_ENTRIES;

const CAP: u64 = 0x00;
const VS: u64 = 0x08;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;

/// CAP: contiguous queues, 10 s until the controller is ready at the most, the NVM command set. What is 0: round robin
/// only, doorbells 4 bytes apart, pages of 4 KiB.
const CAPABILITIES: u64 = (MOST_ENTRIES as u64 - 1) | 1 << 16 | 20 << 24 | 1 << 37;

/// NVM Express 1.4.
pub(super) const VERSION: u32 = 0x0001_0400;

/// Bits of CC.
mod configuration {
    pub const ENABLE: u32 = 1 << 0;
    /// Command set, page size, arbitration: only 0 is offered.
    pub const FIXED: u32 = 0x7 << 4 | 0xf << 7 | 0x7 << 11;
    pub const SHUTDOWN: u32 = 0x3 << 14;
    /// Sizes of entries as powers of two.
    pub const SUBMISSION_ENTRY: u32 = 0xf << 16;
    pub const COMPLETION_ENTRY: u32 = 0xf << 20;
    pub const ALL: u32 = ENABLE | FIXED | SHUTDOWN | SUBMISSION_ENTRY | COMPLETION_ENTRY;
    pub const ENTRIES: [u32; 4] = [0, 6 << 16, 4 << 20, 6 << 16 | 4 << 20];
}

/// Bits of CSTS.
pub(super) mod status {
    pub const READY: u32 = 1 << 0;
    pub const FATAL: u32 = 1 << 1;
    pub const SHUTTING_DOWN: u32 = 1 << 2;
    pub const SHUT_DOWN: u32 = 2 << 2;
    pub const ALL: u32 = READY | FATAL | 3 << 2;
}

/// What comes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// CC.EN was set.
    Enable,
    /// CC.EN was cleared: a reset of the controller.
    Disable,
    /// CC.SHN announces that power will go.
    Shutdown,
}

/// What a driver can write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers {
    configuration: u32,
    admin_sizes: u32,
    admin_submission: u64,
    admin_completion: u64,
}

impl Registers {
    /// The doubleword at `offset`, a multiple of 4, given CSTS.
    pub fn read(&self, offset: u64, status: u32) -> u32 {
        let half = |register: u64| (register >> (offset % 8 * 8)) as u32;
        match offset & !7 {
            CAP => half(CAPABILITIES),
            ASQ => half(self.admin_submission),
            ACQ => half(self.admin_completion),
            _ => match offset {
                VS => VERSION,
                CC => self.configuration,
                CSTS => status,
                AQA => self.admin_sizes,
                _ => 0,
            },
        }
    }

    /// Writes the doubleword at `offset`, a multiple of 4.
    pub fn write(&mut self, offset: u64, value: u32) -> Change {
        if offset == CC {
            return self.configure(value);
        }
        // An enabled controller has its admin queues already.
        if self.enabled() {
            return Change::Nothing;
        }
        match offset {
            AQA => self.admin_sizes = value & 0x0fff_0fff,
            _ => {
                let register = match offset & !7 {
                    ASQ => &mut self.admin_submission,
                    ACQ => &mut self.admin_completion,
                    _ => return Change::Nothing,
                };
                let shift = offset % 8 * 8;
                *register &= !(u64::from(u32::MAX) << shift);
                *register |= u64::from(value) << shift;
                // They begin a page.
                *register &= !0xfff;
            }
        }
        Change::Nothing
    }

    fn configure(&mut self, value: u32) -> Change {
        use configuration::{ALL, ENABLE, SHUTDOWN};
        let before = std::mem::replace(&mut self.configuration, value & ALL);
        match (before & ENABLE != 0, value & ENABLE != 0) {
            (false, true) => Change::Enable,
            (true, false) => Change::Disable,
            (true, true) if before & SHUTDOWN == 0 && value & SHUTDOWN != 0 => Change::Shutdown,
            _ => Change::Nothing,
        }
    }

    /// CC.EN.
    pub fn enabled(&self) -> bool {
        self.configuration & configuration::ENABLE != 0
    }

    /// Whether the driver chose what is offered. Sizes of entries may still be missing: firmware
    /// sets them later.
    pub fn acceptable(&self) -> bool {
        use configuration::{COMPLETION_ENTRY, ENTRIES, FIXED, SUBMISSION_ENTRY};
        let entries = self.configuration & (SUBMISSION_ENTRY | COMPLETION_ENTRY);
        self.configuration & FIXED == 0 && ENTRIES.contains(&entries)
    }

    /// Base and entries of the admin queues: for submission and for completion.
    pub fn admin_queues(&self) -> ((u64, u32), (u64, u32)) {
        let sizes = self.admin_sizes;
        let submission = (self.admin_submission, (sizes & 0xfff) + 1);
        let completion = (self.admin_completion, (sizes >> 16 & 0xfff) + 1);
        (submission, completion)
    }

    /// Takes saved registers, as far as they can be.
    pub fn restore(&mut self, saved: &Self) {
        *self = Self {
            configuration: saved.configuration & configuration::ALL,
            admin_sizes: saved.admin_sizes & 0x0fff_0fff,
            admin_submission: saved.admin_submission & !0xfff,
            admin_completion: saved.admin_completion & !0xfff,
        };
    }
}
