//! The cells of the flash chip that keeps UEFI variables: in memory, where the guest reads them, and in a file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use lodge_devices::pflash::{Array, BLOCK};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::FirmwareError;
use crate::slot::{self, ReadOnlySlot};

const MAX_BYTES: u64 = 1 << 20;

/// The cells.
///
/// The file is written, not mapped: a full disk is then an error that the guest can be told, and not a signal.
pub struct Variables {
    file: File,
    slot: ReadOnlySlot,
    /// What differs from the file.
    changed: Option<Range<u64>>,
}

impl Variables {
    /// Reads `file`, whose cells end at the guest-physical address `end`.
    pub fn load(vm: &Arc<VmFd>, file: File, end: u64) -> Result<Self, FirmwareError> {
        let read = |source: io::Error| FirmwareError::Read {
            what: "variables",
            source,
        };
        let length = file.metadata().map_err(read)?.len();
        if length == 0 || length % BLOCK != 0 || length > MAX_BYTES {
            return Err(FirmwareError::Size {
                what: "variables",
                length,
                expected: "4 KiB to 1 MiB, a multiple of 4096",
            });
        }
        let mapping =
            MmapRegion::new(length as usize).map_err(|error| read(io::Error::other(error)))?;
        let mut cells = vec![0; length as usize];
        file.read_exact_at(&mut cells, 0).map_err(read)?;
        mapping
            .as_volatile_slice()
            .write_slice(&cells, 0)
            .map_err(|error| read(io::Error::other(error)))?;
        Ok(Self {
            file,
            slot: ReadOnlySlot::new(vm, slot::VARIABLES, end - length, mapping),
            changed: None,
        })
    }

    /// First guest-physical address.
    pub fn base(&self) -> u64 {
        self.slot.base()
    }
}

impl Array for Variables {
    fn length(&self) -> u64 {
        self.slot.mapping().size() as u64
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let cells = self.slot.mapping().as_volatile_slice();
        if let Err(error) = cells.read_slice(data, offset as usize) {
            tracing::debug!(%error, offset, "outside the firmware's variables");
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let cells = self.slot.mapping().as_volatile_slice();
        if let Err(error) = cells.write_slice(data, offset as usize) {
            tracing::debug!(%error, offset, "outside the firmware's variables");
            return;
        }
        let end = offset + data.len() as u64;
        self.changed = Some(match self.changed.take() {
            Some(before) => before.start.min(offset)..before.end.max(end),
            None => offset..end,
        });
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(range) = self.changed.clone() else {
            return Ok(());
        };
        let mut cells = vec![0; (range.end - range.start) as usize];
        self.read(range.start, &mut cells);
        self.file.write_all_at(&cells, range.start)?;
        self.file.sync_data()?;
        self.changed = None;
        Ok(())
    }

    fn expose(&mut self, exposed: bool) {
        if let Err(error) = self.slot.show(exposed) {
            // Reads then come through the chip's registers, which is slow and right.
            tracing::error!(%error, exposed, "the firmware's variables");
        }
    }
}
