//! GRUB as a BIOS starts it: the boot sector, and the program that it loads (GRUB 2.06, `boot/i386/pc`).

use super::layout::Part;

/// Bytes of the first sector that are program; the rest is a disk's identity and its table.
const PROGRAM: usize = 440;

/// In the boot sector: block number of the program that follows, and the two bytes that would trust the number of the drive
/// which the machine hands over less than they should.
const NEXT: usize = 0x5c;
const DRIVE_CHECK: usize = 0x66;

/// In the first block of the program: block number of its second one.
const REST: usize = 500;

const BLOCK: u64 = 512;
const NO_OPERATION: u8 = 0x90;

/// What is wrong with the files of the boot loader.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BootLoaderError {
    /// The boot sector.
    #[error("boot.img is no boot sector")]
    Sector,
    /// What comes after it.
    #[error("core.img has {0} bytes, which do not fit")]
    Program(usize),
}

/// The first bytes of a disk whose program begins at `program`, in bytes.
pub(super) fn sector(image: &[u8], program: u64) -> Result<[u8; PROGRAM], BootLoaderError> {
    let whole = image.len() == BLOCK as usize && image.ends_with(&[0x55, 0xaa]);
    if !whole {
        return Err(BootLoaderError::Sector);
    }
    let mut sector = [0; PROGRAM];
    sector.copy_from_slice(&image[..PROGRAM]);
    sector[NEXT..NEXT + 8].copy_from_slice(&(program / BLOCK).to_le_bytes());
    sector[DRIVE_CHECK..DRIVE_CHECK + 2].fill(NO_OPERATION);
    Ok(sector)
}

/// The program, to be put at `start`, in bytes.
pub(super) fn program(mut image: Vec<u8>, start: u64) -> Result<Vec<u8>, BootLoaderError> {
    let room = Part::BiosBoot.size().unwrap_or(0);
    if image.len() <= BLOCK as usize || image.len() as u64 > room {
        return Err(BootLoaderError::Program(image.len()));
    }
    let second = start / BLOCK + 1;
    image[REST..REST + 8].copy_from_slice(&second.to_le_bytes());
    image.resize(image.len().next_multiple_of(BLOCK as usize), 0);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_told_where_the_next_is() {
        let mut image = vec![7; 512];
        image[510..].copy_from_slice(&[0x55, 0xaa]);
        let sector = sector(&image, 1 << 20).unwrap();
        assert_eq!(sector[NEXT..NEXT + 8], 2048_u64.to_le_bytes());
        assert_eq!((sector[0], sector[DRIVE_CHECK - 1]), (7, 7));
        let program = program(vec![7; 1000], 1 << 20).unwrap();
        assert_eq!(program.len(), 1024);
        assert_eq!(program[REST..REST + 8], 2049_u64.to_le_bytes());
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(sector(&[0; 512], 0), Err(BootLoaderError::Sector));
        assert_eq!(sector(&[], 0), Err(BootLoaderError::Sector));
        assert_eq!(program(vec![0; 512], 0), Err(BootLoaderError::Program(512)));
        let large = (1 << 20) + 1;
        assert_eq!(
            program(vec![0; large], 0),
            Err(BootLoaderError::Program(large))
        );
    }
}
