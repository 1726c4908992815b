//! What disks say of their own condition, which they know before anybody else does.

mod ata;
mod nvme;

use super::BlockDevice;

/// How long a disk may take to answer, in milliseconds.
const PATIENCE: u32 = 5000;

/// What a disk says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why it may fail soon, for people; nothing while it is well.
    pub problems: Vec<String>,
    /// Its temperature, in degrees Celsius.
    pub temperature: Option<i16>,
    /// How much of what it was made for has been written, in percent; it may go on beyond 100.
    pub used_percent: Option<u8>,
    /// NVMe: errors in what was read. ATA: blocks that were given up, or are about to be.
    pub errors: Option<u64>,
    /// Hours for which it has been on.
    pub power_on_hours: Option<u64>,
}

/// Asks a whole disk. `None` where it does not tell: most virtual disks and sticks do not.
pub fn health(device: &BlockDevice) -> Option<Health> {
    let found = match device.transport.as_deref()? {
        "nvme" => nvme::health(&device.path()),
        "ata" => ata::health(&device.path()),
        _ => return None,
    };
    found
        .inspect_err(
            |error| tracing::debug!(%error, disk = %device.name, "a disk says nothing of itself"),
        )
        .ok()
}
