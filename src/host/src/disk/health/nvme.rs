//! SMART / Health Information of NVMe disks (NVM Express 1.4, section 5.14.1.2).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{Health, PATIENCE};

/// Get Log Page (section 5.14).
const GET_LOG_PAGE: u8 = 0x02;

/// The log that is about the whole controller.
const HEALTH_LOG: u32 = 0x02;
const ALL_NAMESPACES: u32 = 0xffff_ffff;
const LENGTH: usize = 512;

/// 0 °C in kelvins, as the log counts.
const FREEZING: i16 = 273;

/// What the bits of the critical warning mean.
const WARNINGS: [&str; 6] = [
    "hardly any spare blocks are left",
    "it is too hot or too cold",
    "it has become unreliable by many errors",
    "it takes no writes any more",
    "its protection against power cuts has failed",
    "its persistent memory region is unreliable",
];

/// `struct nvme_passthru_cmd` (Linux, `linux/nvme_ioctl.h`).
#[derive(Default)]
#[repr(C)]
struct Command {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

nix::ioctl_readwrite!(admin_command, b'N', 0x41, Command);

/// Reads the log of the disk at `path`.
pub(super) fn health(path: &Path) -> io::Result<Health> {
    let disk = File::open(path)?;
    let mut log = [0_u8; LENGTH];
    let dwords = (LENGTH / 4 - 1) as u32;
    let mut command = Command {
        opcode: GET_LOG_PAGE,
        namespace: ALL_NAMESPACES,
        address: log.as_mut_ptr() as u64,
        data_length: LENGTH as u32,
        cdw10: dwords << 16 | HEALTH_LOG,
        timeout_ms: PATIENCE,
        ..Command::default()
    };
    // SAFETY: the kernel reads the command and fills the 512 bytes that it names, which live longer than the call.
    let status = unsafe { admin_command(disk.as_raw_fd(), &raw mut command) }?;
    match status {
        0 => Ok(parse(&log)),
        status => Err(io::Error::other(format!("NVMe status {status:#x}"))),
    }
}

fn parse(log: &[u8; LENGTH]) -> Health {
    let warnings = WARNINGS.iter().enumerate();
    let problems = warnings.filter(|(bit, _)| log[0] & 1 << bit != 0);
    let kelvins = i16::from_le_bytes([log[1], log[2]]);
    Health {
        problems: problems.map(|(_, text)| (*text).to_owned()).collect(),
        // Zero is said by disks that do not know.
        temperature: (kelvins > 0).then(|| kelvins - FREEZING),
        used_percent: Some(log[5]),
        errors: Some(count(log, 160)),
        power_on_hours: Some(count(log, 128)),
    }
}

/// A number of 16 bytes, as far as it goes.
fn count(log: &[u8; LENGTH], at: usize) -> u64 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&log[at..at + 16]);
    u64::try_from(u128::from_le_bytes(bytes)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_as_the_kernel_has_it() {
        assert_eq!(size_of::<Command>(), 72);
    }

    #[test]
    fn a_log_is_read() {
        let mut log = [0; LENGTH];
        let well = parse(&log);
        assert!(well.problems.is_empty() && well.temperature.is_none());
        log[0] = 0b1001;
        log[1..3].copy_from_slice(&310_u16.to_le_bytes());
        log[5] = 104;
        log[128..136].copy_from_slice(&8766_u64.to_le_bytes());
        log[160] = 3;
        log[175] = 1;
        let health = parse(&log);
        assert_eq!(health.problems, [WARNINGS[0], WARNINGS[3]]);
        assert_eq!(health.temperature, Some(37));
        assert_eq!(health.used_percent, Some(104));
        assert_eq!(health.power_on_hours, Some(8766));
        assert_eq!(health.errors, Some(u64::MAX), "more than can be counted");
    }
}
