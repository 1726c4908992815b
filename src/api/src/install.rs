//! Installing Lodge on a disk of the host.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Size;

/// A disk of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostDisk {
    /// Kernel name, `nvme0n1`. It may change from boot to boot.
    pub name: String,
    /// Serial number, by which it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// What the device calls itself.
    pub model: String,
    /// Its size.
    pub size: Size,
    /// How it is attached: `nvme`, `ata`, `usb`, `virtio`, `scsi`, …; `nvme-tcp` where it is in another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Whether it spins.
    pub rotational: bool,
    /// Whether it is a removable medium.
    pub removable: bool,
    /// What it says of its own condition; absent where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<DiskHealth>,
    /// What is on it; empty when it is blank.
    pub contents: Vec<String>,
    /// Why nothing can be written to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<String>,
}

/// What a disk says of its own condition (SMART).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskHealth {
    /// Why it may fail soon; empty while it is well.
    pub problems: Vec<String>,
    /// Its temperature in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<i16>,
    /// How much of what it was made for has been written, in percent; it may go on beyond 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<u8>,
    /// NVMe: errors in what was read. ATA: blocks that were given up, or are about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// Hours for which it has been on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_on_hours: Option<u64>,
}

impl HostDisk {
    /// What it is asked for by: its serial number, or its kernel name if it has none.
    pub fn identity(&self) -> &str {
        self.serial.as_deref().unwrap_or(&self.name)
    }
}

/// Body of `POST /v1/system:install`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// Serial number of the disk; the kernel name of one that has no serial number.
    pub disk: String,
    /// Erase what is on the disk. Without it only a blank disk is taken.
    #[serde(default)]
    pub erase: bool,
}
