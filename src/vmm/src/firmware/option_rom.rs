//! Option ROMs of a BIOS: what puts its text on the screen, and what boots from the network.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use lodge_vmm_proto::NicModel;

use super::FirmwareError;

/// An option ROM by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionRom {
    /// The guest's screen: it is run first and stays, from 0xc0000 on.
    Display,
    /// Network cards of a model: it throws most of itself away when it has been run, so it may be larger.
    Network(NicModel),
}

impl OptionRom {
    const fn what(self) -> &'static str {
        match self {
            Self::Display => "display ROM",
            Self::Network(_) => "network ROM",
        }
    }

    /// Most bytes, and that for a person.
    const fn limit(self) -> (u64, &'static str) {
        match self {
            Self::Display => (64 << 10, "1 byte to 64 KiB"),
            Self::Network(_) => (128 << 10, "1 byte to 128 KiB"),
        }
    }

    /// Where SeaBIOS looks for it. A display that is not on PCI has a folder of its own, which is run first of all, as the
    /// ROM of the screen; a PCI function's ROM goes by its vendor and device.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Display => "vgaroms/vgabios-ramfb.bin",
            Self::Network(NicModel::Virtio) => "pci1af4,1041.rom",
            Self::Network(NicModel::E1000e) => "pci8086,10d3.rom",
        }
    }

    /// Reads the ROM. It is firmware that runs it, and checks what is in it.
    ///
    /// # Errors
    /// When it is empty, too large, or cannot be read.
    pub fn read(self, file: &File) -> Result<Vec<u8>, FirmwareError> {
        let what = self.what();
        let failed = |source: io::Error| FirmwareError::Read { what, source };
        let length = file.metadata().map_err(failed)?.len();
        let (most, expected) = self.limit();
        if !(1..=most).contains(&length) {
            return Err(FirmwareError::Size {
                what,
                length,
                expected,
            });
        }
        let mut rom = vec![0; length as usize];
        file.read_exact_at(&mut rom, 0).map_err(failed)?;
        Ok(rom)
    }
}
