//! The option ROM that puts a BIOS's text on the screen.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::FirmwareError;

/// Largest option ROM: what fits below the BIOS's own shadow, from 0xc0000 on.
const MAX: u64 = 64 << 10;

/// Reads the ROM. It is firmware that runs it, and checks what is in it.
///
/// # Errors
/// When it is empty, too large, or cannot be read.
pub fn read(file: &File) -> Result<Vec<u8>, FirmwareError> {
    let failed = |source: io::Error| FirmwareError::Read {
        what: "display ROM",
        source,
    };
    let length = file.metadata().map_err(failed)?.len();
    if !(1..=MAX).contains(&length) {
        return Err(FirmwareError::Size {
            what: "display ROM",
            length,
            expected: "1 byte to 64 KiB",
        });
    }
    let mut rom = vec![0; length as usize];
    file.read_exact_at(&mut rom, 0).map_err(failed)?;
    Ok(rom)
}
