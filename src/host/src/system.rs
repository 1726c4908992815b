//! The machine: processor, memory, load, maker, disks.

use serde::{Deserialize, Serialize};

/// What started the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// A PC BIOS, or UEFI in its compatibility mode.
    Bios,
    /// UEFI.
    Uefi,
}
