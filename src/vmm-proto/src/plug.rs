//! Devices that come and go while the guest runs.

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, FdIndex};
use crate::{DiskConfig, NicConfig};

/// A device to be plugged in; each [`FdIndex`] points into the descriptors that come along.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewDevice {
    /// A disk with a serial number.
    Disk(DiskConfig),
    /// A network interface.
    Nic(NicConfig),
}

impl NewDevice {
    /// Checks every bound the monitor relies on, given how many descriptors came along.
    ///
    /// # Errors
    /// Names the field that is out of its range.
    pub fn validate(&self, fds: usize) -> Result<(), ConfigError> {
        let descriptors: Vec<(String, FdIndex)> = match self {
            Self::Disk(disk) => vec![("disk.file".to_owned(), disk.file)],
            Self::Nic(nic) => nic.descriptors("nic"),
        };
        for (field, index) in descriptors {
            if usize::from(index.0) >= fds {
                let problem = format!("descriptor {} of {fds} does not exist", index.0);
                return Err(ConfigError::new(field, problem));
            }
        }
        match self {
            Self::Disk(disk) if disk.serial.is_empty() => {
                Err(ConfigError::new("disk.serial", "must not be empty"))
            }
            Self::Disk(disk) => disk.validate("disk"),
            Self::Nic(nic) => nic.validate("nic"),
        }
    }

    /// What it is known by.
    pub fn key(&self) -> DeviceKey {
        match self {
            Self::Disk(disk) => DeviceKey::Disk(disk.serial.clone()),
            Self::Nic(nic) => DeviceKey::Nic(nic.mac),
        }
    }
}

/// What a device is known by for as long as it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKey {
    /// A disk, by its serial number.
    Disk(String),
    /// A network interface, by its MAC address.
    Nic([u8; 6]),
}

/// The disks and network interfaces of a guest: those it was started with and still has, then those that came later, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedDevices {
    /// Serial numbers.
    pub disks: Vec<String>,
    /// MAC addresses.
    pub nics: Vec<[u8; 6]>,
}

impl PluggedDevices {
    /// Whether the device is among them.
    pub fn has(&self, device: &DeviceKey) -> bool {
        match device {
            DeviceKey::Disk(serial) => self.disks.contains(serial),
            DeviceKey::Nic(mac) => self.nics.contains(mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NicModel, QueuePair};

    #[test]
    fn a_device_out_of_bounds_is_refused() {
        let disk = |file, serial: &str| {
            NewDevice::Disk(DiskConfig {
                file: FdIndex(file),
                bus: crate::DiskBus::Virtio,
                read_only: false,
                serial: serial.to_owned(),
                limits: crate::DiskLimits::default(),
                on_error: crate::OnDiskError::default(),
            })
        };
        let with = |model, further_pairs, vhost, mac, mtu| {
            NewDevice::Nic(NicConfig {
                link_up: true,
                tap: FdIndex(0),
                model,
                vhost,
                further_pairs,
                mac,
                mtu,
            })
        };
        let nic = |vhost, mac, mtu| with(NicModel::Virtio, Vec::new(), vhost, mac, mtu);
        let pairs = |model, index, count: usize| {
            let pair = QueuePair {
                tap: FdIndex(index),
                vhost: None,
            };
            with(model, vec![pair; count], None, [2, 0, 0, 0, 0, 1], 1500)
        };
        let good = [2, 0, 0, 0, 0, 1];
        assert_eq!(disk(0, "d").validate(1), Ok(()));
        assert_eq!(nic(Some(FdIndex(1)), good, 1500).validate(2), Ok(()));
        assert_eq!(pairs(NicModel::Virtio, 0, 7).validate(1), Ok(()));
        for (device, field) in [
            (disk(1, "d"), "disk.file"),
            (disk(0, ""), "disk.serial"),
            (disk(0, "123456789012345678901"), "disk.serial"),
            (nic(Some(FdIndex(1)), good, 1500), "nic.vhost"),
            (nic(None, [1, 0, 0, 0, 0, 1], 1500), "nic.mac"),
            (nic(None, good, 67), "nic.mtu"),
            (pairs(NicModel::Virtio, 1, 2), "nic.further_pairs.0.tap"),
            (pairs(NicModel::Virtio, 0, 8), "nic.further_pairs"),
            (pairs(NicModel::E1000e, 0, 1), "nic.further_pairs"),
        ] {
            assert_eq!(device.validate(1).unwrap_err().field, field);
        }
    }
}
