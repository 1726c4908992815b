//! Boot by firmware: the ROM at the end of the first 4 GiB, its variables, and what it is told of the machine.
//!
//! The machine keeps the contract of QEMU's Q35, so that the files of Debian's `seabios` and `ovmf` packages run as they are.
//! What differs from a real Q35: memory from 0xc0000 to 1 MiB is always RAM, with the end of the firmware
//! in it at power-on (the PAM registers are kept, and have no effect), and there is no system management mode.

mod configuration;
mod option_rom;
mod order;
mod rom;
mod table_loader;
mod variables;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;
use lodge_devices::GuestMemory;
use lodge_devices::cmos::Cmos;
use lodge_devices::pflash::Pflash;
use lodge_vmm_proto::{BootDevice, LaunchError};

use crate::layout::FIRMWARE_END;
use crate::machine::Failure;
pub use configuration::{Configuration, fw_cfg};
pub use option_rom::OptionRom;
pub use order::{DiskPlace, Place, boot_order};
use rom::Rom;
use variables::Variables;

/// Files of a boot by firmware.
pub struct FirmwareBoot {
    /// The ROM; it ends at 4 GiB.
    pub code: File,
    /// Its variables, right below it, opened for reading and writing.
    pub variables: Option<File>,
    /// What it shall boot from, the first first.
    pub order: Vec<BootDevice>,
    /// What a BIOS needs for screen and network.
    pub option_roms: Vec<(OptionRom, File)>,
}

/// Firmware in its place.
pub struct Firmware {
    rom: Rom,
    /// The chip with the variables.
    pub variables: Option<Flash>,
}

/// A flash chip and where it answers.
pub struct Flash {
    /// Guest-physical addresses.
    pub range: Range<u64>,
    /// The chip.
    pub chip: Arc<Mutex<Pflash>>,
}

/// Firmware that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// A file has a size no such file has.
    #[error("the file of firmware {what} is {length} bytes; it must be {expected}")]
    Size {
        /// Which file.
        what: &'static str,
        /// Its length.
        length: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A file could not be read or mapped.
    #[error("the file of firmware {what}: {source}")]
    Read {
        /// Which file.
        what: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// KVM refused the ROM.
    #[error(transparent)]
    Kvm(#[from] crate::kvm::KvmError),
}

impl From<FirmwareError> for Failure {
    fn from(error: FirmwareError) -> Self {
        Self::new(LaunchError::Firmware, error.to_string())
    }
}

impl Firmware {
    /// Maps code and variables.
    ///
    /// # Errors
    /// [`FirmwareError`].
    pub fn place(vm: &Arc<VmFd>, boot: FirmwareBoot) -> Result<Self, FirmwareError> {
        let rom = Rom::map(vm, &boot.code)?;
        let variables = match boot.variables {
            None => None,
            Some(file) => {
                let end = FIRMWARE_END - rom.length();
                let variables = Variables::load(vm, file, end)?;
                let range = variables.base()..end;
                let chip = Pflash::new(Box::new(variables));
                Some(Flash {
                    range,
                    chip: Arc::new(Mutex::new(chip)),
                })
            }
        };
        Ok(Self { rom, variables })
    }

    /// Puts the end of the firmware below 1 MiB of fresh memory.
    ///
    /// # Errors
    /// When memory does not reach that far.
    pub fn shadow(&self, memory: &GuestMemory) -> Result<(), Failure> {
        self.rom.shadow(memory)
    }
}

/// Sets the memory sizes and the number of vCPUs that firmware has read from battery-backed memory since the 1980s.
pub fn fill_cmos(cmos: &mut Cmos, memory: &GuestMemory, vcpus: u8) {
    for (index, value) in configuration::cmos_bytes(memory, vcpus) {
        cmos.set_memory(index, value);
    }
}
