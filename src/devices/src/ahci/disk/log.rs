//! Logs of a disk (ACS-3, annex A): their directory, and which queued command failed.

use serde::{Deserialize, Serialize};

use crate::ahci::fis::TaskFile;

/// Bytes of a log page.
pub(super) const PAGE_BYTES: usize = 512;

const DIRECTORY: u8 = 0x00;
const QUEUED_ERROR: u8 = 0x10;
/// The error log's tag when the command that failed was not queued, or none failed.
const NOT_QUEUED: u8 = 0x80;

/// A queued command that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub tag: u8,
    pub status: u8,
    pub error: u8,
    pub lba: u64,
    pub count: u16,
}

impl Failure {
    pub fn new(tag: u32, task: &TaskFile) -> Self {
        Self {
            // A slot's number.
            tag: tag as u8,
            status: task.status,
            error: task.error,
            lba: task.lba,
            count: task.count,
        }
    }
}

/// The first page of log `address`, all it has.
pub(super) fn page(address: u8, failure: Option<&Failure>) -> Option<[u8; PAGE_BYTES]> {
    let mut page = [0; PAGE_BYTES];
    match address {
        DIRECTORY => {
            page[..2].copy_from_slice(&1_u16.to_le_bytes());
            // One page of the other log.
            page[2 * usize::from(QUEUED_ERROR)] = 1;
        }
        QUEUED_ERROR => {
            page[0] = failure.map_or(NOT_QUEUED, |failure| failure.tag & 0x1f);
            if let Some(failure) = failure {
                let lba = failure.lba.to_le_bytes();
                page[2] = failure.status;
                page[3] = failure.error;
                page[4..7].copy_from_slice(&lba[..3]);
                page[8..11].copy_from_slice(&lba[3..6]);
                page[12..14].copy_from_slice(&failure.count.to_le_bytes());
            }
            let sum = page.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            page[PAGE_BYTES - 1] = sum.wrapping_neg();
        }
        _ => return None,
    }
    Some(page)
}
