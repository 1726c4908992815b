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
    /// How it is attached: `nvme`, `ata`, `usb`, `virtio`, `scsi`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Whether it spins.
    pub rotational: bool,
    /// Whether it is a removable medium.
    pub removable: bool,
    /// What is on it; empty when it is blank.
    pub contents: Vec<String>,
    /// Why nothing can be written to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<String>,
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
