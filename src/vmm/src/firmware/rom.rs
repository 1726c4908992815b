//! The firmware's code.

use std::fs::File;
use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use lodge_devices::GuestMemory;
use lodge_vmm_proto::LaunchError;
use vm_memory::{FileOffset, MmapRegion};

use super::FirmwareError;
use crate::layout::{ABOVE_1M, FIRMWARE_END, SHADOW_LENGTH};
use crate::machine::Failure;
use crate::memory::{self, PAGE};
use crate::slot::{self, ReadOnlySlot};

/// A ROM has room for the reset code at least, and leaves room for the interrupt controllers below it.
const SIZES: std::ops::RangeInclusive<u64> = (64 << 10)..=(8 << 20);

/// A ROM that ends at 4 GiB. Its pages are those of the file in the host's page cache.
pub struct Rom {
    file: File,
    slot: ReadOnlySlot,
}

impl Rom {
    /// Maps the whole of `file`.
    pub fn map(vm: &Arc<VmFd>, file: &File) -> Result<Self, FirmwareError> {
        let read = |source: io::Error| FirmwareError::Read {
            what: "code",
            source,
        };
        let file = file.try_clone().map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        if !SIZES.contains(&length) || length % PAGE != 0 {
            return Err(FirmwareError::Size {
                what: "code",
                length,
                expected: "64 KiB to 8 MiB, a multiple of 4096",
            });
        }
        let mapping = MmapRegion::build(
            Some(FileOffset::new(file.try_clone().map_err(read)?, 0)),
            length as usize,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        )
        .map_err(|error| read(io::Error::other(error)))?;
        let slot = ReadOnlySlot::new(vm, slot::CODE, FIRMWARE_END - length, mapping);
        slot.show(true)?;
        Ok(Self { file, slot })
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.slot.mapping().size() as u64
    }

    /// Copies the end of it to where a processor in real mode finds it.
    pub fn shadow(&self, memory: &GuestMemory) -> Result<(), Failure> {
        let length = SHADOW_LENGTH.min(self.length());
        let offset = self.length() - length;
        memory::read_file(memory, &self.file, offset, ABOVE_1M - length, length)
            .map_err(Failure::doing(LaunchError::Firmware, "firmware"))
    }
}
