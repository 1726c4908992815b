//! SMART of ATA disks (ACS-3, section 7.48), through the kernel's SCSI translation (SAT-3, section 12.2).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{Health, PATIENCE};

/// The command, and the words that make sure that it is meant.
const SMART: u8 = 0xb0;
const LBA_MID: u8 = 0x4f;
const LBA_HIGH: u8 = 0xc2;

/// Its subcommands.
const READ_DATA: u8 = 0xd0;
const RETURN_STATUS: u8 = 0xda;

/// What a disk answers that expects to fail.
const FAILING: [u8; 2] = [0xf4, 0x2c];

const SECTOR: usize = 512;
const SENSE: usize = 32;

/// Attributes, by custom: where they begin, how many there are and how long each is.
const ATTRIBUTES: usize = 2;
const COUNT: usize = 30;
const ATTRIBUTE: usize = 12;

const REALLOCATED: u8 = 5;
const POWER_ON_HOURS: u8 = 9;
const TEMPERATURE: u8 = 194;
const PENDING: u8 = 197;

/// `struct sg_io_hdr` (Linux, `scsi/sg.h`).
#[repr(C)]
struct Request {
    interface: i32,
    direction: i32,
    command_length: u8,
    sense_length: u8,
    segments: u16,
    data_length: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    id: i32,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    residue: i32,
    duration: u32,
    info: u32,
}

const NO_DATA: i32 = -1;
const FROM_DISK: i32 = -3;

nix::ioctl_readwrite_bad!(sg_io, 0x2285, Request);

/// Asks the disk at `path`.
pub(super) fn health(path: &Path) -> io::Result<Health> {
    let disk = File::open(path)?;
    let mut problems = Vec::new();
    if expects_to_fail(&smart(&disk, RETURN_STATUS, None)?)? {
        problems.push("it expects to fail soon".to_owned());
    }
    let mut data = [0; SECTOR];
    smart(&disk, READ_DATA, Some(&mut data))?;
    Ok(Health {
        problems,
        ..attributes(&data)
    })
}

/// Carries a subcommand out; its sense data are the answer.
fn smart(disk: &File, subcommand: u8, data: Option<&mut [u8; SECTOR]>) -> io::Result<[u8; SENSE]> {
    let command = command(subcommand, data.is_some());
    let mut sense = [0; SENSE];
    let mut request = Request {
        interface: i32::from(b'S'),
        direction: if data.is_some() { FROM_DISK } else { NO_DATA },
        command_length: command.len() as u8,
        sense_length: SENSE as u8,
        segments: 0,
        data_length: if data.is_some() { SECTOR as u32 } else { 0 },
        data: data.map_or(std::ptr::null_mut(), |data| data.as_mut_ptr()),
        command: command.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: PATIENCE,
        flags: 0,
        id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        residue: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the command, the sense data and the data that the request names have the lengths it says, and live longer than the call.
    unsafe { sg_io(disk.as_raw_fd(), &raw mut request) }?;
    if request.host_status != 0 {
        let status = request.host_status;
        return Err(io::Error::other(format!("the controller says {status:#x}")));
    }
    Ok(sense)
}

/// ATA PASS-THROUGH (16).
fn command(subcommand: u8, reads: bool) -> [u8; 16] {
    let mut command = [0; 16];
    command[0] = 0x85;
    // PIO data in, one sector, whose number is in the count; or no data, and registers in the answer.
    (command[1], command[2], command[6]) = if reads {
        (4 << 1, 0x0e, 1)
    } else {
        (3 << 1, 0x20, 0)
    };
    command[4] = subcommand;
    command[10] = LBA_MID;
    command[12] = LBA_HIGH;
    command[14] = SMART;
    command
}

/// Reads the registers out of a descriptor (SAT-3, section 12.2.2.6): they are as they were for a disk that is well.
fn expects_to_fail(sense: &[u8; SENSE]) -> io::Result<bool> {
    let descriptor = &sense[8..22];
    if sense[0] & 0x7f != 0x72 || descriptor[..2] != [0x09, 0x0c] {
        return Err(io::Error::other("SMART is not supported, or is off"));
    }
    match [descriptor[9], descriptor[11]] {
        FAILING => Ok(true),
        [LBA_MID, LBA_HIGH] => Ok(false),
        other => Err(io::Error::other(format!("an unknown answer, {other:x?}"))),
    }
}

fn attributes(data: &[u8; SECTOR]) -> Health {
    let raw = |wanted: u8| {
        let all = data[ATTRIBUTES..].chunks_exact(ATTRIBUTE).take(COUNT);
        let mut found = all.filter(|attribute| attribute[0] == wanted);
        let raw = found.next()?.get(5..11)?;
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(raw);
        Some(u64::from_le_bytes(bytes))
    };
    let bad = [raw(REALLOCATED), raw(PENDING)];
    let bad = bad.into_iter().flatten().reduce(u64::saturating_add);
    Health {
        problems: Vec::new(),
        // Its highest bytes are the extremes, by some makers.
        temperature: raw(TEMPERATURE).map(|raw| i16::from(raw as u8)),
        used_percent: None,
        errors: bad,
        // The same.
        power_on_hours: raw(POWER_ON_HOURS).map(|raw| raw & 0xffff_ffff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_the_kernel_has_it() {
        assert_eq!(size_of::<Request>(), 88);
    }

    fn sense(mid: u8, high: u8) -> [u8; SENSE] {
        let mut sense = [0; SENSE];
        sense[0] = 0x72;
        sense[8..10].copy_from_slice(&[0x09, 0x0c]);
        (sense[17], sense[19]) = (mid, high);
        sense
    }

    #[test]
    fn a_disk_that_expects_to_fail_says_so() {
        assert!(!expects_to_fail(&sense(0x4f, 0xc2)).unwrap());
        assert!(expects_to_fail(&sense(0xf4, 0x2c)).unwrap());
        assert!(expects_to_fail(&sense(0, 0)).is_err());
        assert!(expects_to_fail(&[0; SENSE]).is_err());
    }

    #[test]
    fn attributes_are_found_by_their_numbers() {
        let mut data = [0; SECTOR];
        let all = [(9, 8766), (5, 2), (194, 0x0000_0028_0012_0025), (197, 1)];
        for (number, (id, raw)) in all.into_iter().enumerate() {
            let at = ATTRIBUTES + number * ATTRIBUTE;
            data[at] = id;
            data[at + 5..at + 11].copy_from_slice(&u64::to_le_bytes(raw)[..6]);
        }
        let health = attributes(&data);
        assert_eq!(health.temperature, Some(37));
        assert_eq!(health.power_on_hours, Some(8766));
        assert_eq!(health.errors, Some(3));
        assert_eq!(attributes(&[0; SECTOR]), Health::default());
    }
}
