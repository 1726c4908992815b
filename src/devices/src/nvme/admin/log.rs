//! Log pages (NVM Express 1.4, 5.14.1).

use super::Admin;
use super::identify::FIRMWARE;
use crate::nvme::command::{Command, Status};
use crate::nvme::shared::Shared;
use crate::nvme::{NAMESPACE, PAGE_BYTES};

pub(super) const ERRORS: u8 = 0x01;
const HEALTH: u8 = 0x02;
const FIRMWARE_SLOTS: u8 = 0x03;
pub(super) const CHANGED_NAMESPACES: u8 = 0x04;

/// Bit of command doubleword 10: the driver does not want to hear of what the page is about again.
const RETAIN: u32 = 1 << 15;

/// What the sensor says, in kelvins: a cool place.
const TEMPERATURE: u16 = 300;

impl Admin<'_> {
    /// Gives the driver as much of a page as it has and the driver wants.
    pub(super) fn get_log_page(&mut self, command: &Command) -> Result<(), Status> {
        let id = command.word(10) as u8;
        let page = match id {
            // One entry, and none was ever made.
            ERRORS => vec![0; 64],
            HEALTH => health(self.shared),
            FIRMWARE_SLOTS => firmware_slots(),
            CHANGED_NAMESPACES => changed_namespaces(self.events.namespace_changed()),
            _ => return Err(Status::INVALID_LOG_PAGE),
        };
        let offset = u64::from(command.word(12)) | u64::from(command.word(13)) << 32;
        let rest = usize::try_from(offset).ok().and_then(|at| page.get(at..));
        let rest = rest.filter(|_| offset.is_multiple_of(4));
        let rest = rest.ok_or(Status::INVALID_FIELD)?;
        let words = u64::from(command.word(10) >> 16) | u64::from(command.word(11) as u16) << 16;
        let count = rest.len().min((words as usize + 1) * 4);
        self.give(command, &rest[..count])?;
        if command.word(10) & RETAIN == 0 {
            self.events.heard(id);
        }
        Ok(())
    }
}

/// SMART and health information.
fn health(shared: &Shared) -> Vec<u8> {
    let mut page = vec![0; 512];
    page[1..3].copy_from_slice(&TEMPERATURE.to_le_bytes());
    // Spare blocks: all of them, and too few below a tenth.
    page[3] = 100;
    page[4] = 10;
    let totals = shared.statistics.totals();
    // Data in thousands of 512 bytes, begun ones as well.
    let units = |bytes: u64| bytes.div_ceil(512 * 1000);
    for (at, value) in [
        (32, units(totals.read_bytes)),
        (48, units(totals.write_bytes)),
        (64, totals.reads),
        (80, totals.writes),
    ] {
        page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    page
}

/// One slot, from which it runs.
fn firmware_slots() -> Vec<u8> {
    let mut page = vec![0; 512];
    page[0] = 1;
    page[8..16].copy_from_slice(FIRMWARE);
    page
}

fn changed_namespaces(changed: bool) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    if changed {
        page[..4].copy_from_slice(&NAMESPACE.to_le_bytes());
    }
    page
}
