//! What a guest's firmware can start from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A device that firmware can start from: `disk0`, `cdrom0`, `nic1`; the number is its position in the guest's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BootDevice {
    /// One of `disks`.
    Disk(u8),
    /// One of `cdroms`.
    Cdrom(u8),
    /// One of `nics`, by PXE.
    Nic(u8),
}

/// A text that is no [`BootDevice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is nothing to start from: write disk, cdrom or nic and its number, like disk0")]
pub struct BootDeviceError(String);

impl FromStr for BootDevice {
    type Err = BootDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || {
            let shown: String = text.chars().take(80).collect();
            BootDeviceError(shown.escape_debug().to_string())
        };
        let digits = text.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let plain = digits == "0" || !digits.starts_with('0');
        if digits.len() > 2 || !plain || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let number = digits.parse().map_err(|_| error())?;
        match &text[..text.len() - digits.len()] {
            "disk" => Ok(Self::Disk(number)),
            "cdrom" => Ok(Self::Cdrom(number)),
            "nic" => Ok(Self::Nic(number)),
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for BootDevice {
    type Error = BootDeviceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BootDevice> for String {
    fn from(device: BootDevice) -> Self {
        device.to_string()
    }
}

impl fmt::Display for BootDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(number) => write!(f, "disk{number}"),
            Self::Cdrom(number) => write!(f, "cdrom{number}"),
            Self::Nic(number) => write!(f, "nic{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for device in [
            BootDevice::Disk(0),
            BootDevice::Disk(15),
            BootDevice::Cdrom(3),
            BootDevice::Nic(7),
        ] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "", "disk", "0", "disk00", "disk100", "disk+1", "Disk0", "cd0", "nic 1", "disk1x",
            "dïsk0",
        ] {
            assert!(bad.parse::<BootDevice>().is_err(), "{bad:?}");
        }
    }
}
