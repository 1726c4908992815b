//! One disk or network interface of a guest.

use std::fmt;

use lodge_api::Problem;
use lodge_api::vm::{BootDevice, VmDetach, VmDisk, VmNic, VmSpec};
use lodge_store::Snapshot;
use lodge_vmm_proto::DeviceKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{no_such, normal_mac, one_of_both, quoted};
use crate::catalogue;
use crate::disks::DiskRecord;
use crate::vms::launch::serial;
use crate::vms::run_dir::LaunchNote;
use crate::vms::spec_check;
use crate::vms::state::Observed;

/// A disk or network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Device {
    /// A disk, and how the guest has it.
    Disk {
        /// The disk's id.
        id: Uuid,
        /// In the guest's configuration.
        entry: VmDisk,
    },
    /// A network interface, with its address.
    Nic(VmNic),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { entry, .. } => write!(formatter, "the disk {}", quoted(&entry.disk)),
            Self::Nic(nic) => write!(
                formatter,
                "the network interface {}",
                nic.mac.as_deref().unwrap_or_default()
            ),
        }
    }
}

impl Device {
    /// The device a request names, of the configuration or of what the guest runs with.
    pub(super) fn named(
        detach: &VmDetach,
        spec: &VmSpec,
        observed: &Observed,
        snapshot: &Snapshot,
    ) -> Result<Self, Problem> {
        let specs = || std::iter::once(spec).chain(&observed.launched);
        match (&detach.disk, &detach.nic) {
            (Some(name), None) => {
                let entry = specs()
                    .flat_map(|spec| &spec.disks)
                    .find(|entry| entry.disk == *name)
                    .ok_or_else(|| no_such("/disk", "disk", &quoted(name)))?;
                let disk = catalogue::find::<DiskRecord>(snapshot, name.as_str())?;
                Ok(Self::Disk {
                    id: disk.value.id,
                    entry: entry.clone(),
                })
            }
            (None, Some(text)) => {
                let mac = normal_mac(text)?;
                specs()
                    .flat_map(|spec| &spec.nics)
                    .find(|nic| nic.mac.as_ref() == Some(&mac))
                    .map(|nic| Self::Nic(nic.clone()))
                    .ok_or_else(|| no_such("/nic", "network interface", &mac))
            }
            _ => Err(one_of_both()),
        }
    }

    /// What its monitor knows it by.
    pub(crate) fn key(&self) -> DeviceKey {
        match self {
            Self::Disk { id, .. } => DeviceKey::Disk(serial(*id)),
            Self::Nic(nic) => {
                let mac = nic.mac.as_deref().unwrap_or_default();
                // Checked when it was configured.
                DeviceKey::Nic(spec_check::parse_mac(mac).unwrap_or_default())
            }
        }
    }

    fn is_disk(&self, other: &VmDisk) -> bool {
        matches!(self, Self::Disk { entry, .. } if entry.disk == other.disk)
    }

    fn is_nic(&self, other: &VmNic) -> bool {
        matches!(self, Self::Nic(nic) if nic.mac == other.mac)
    }

    /// Whether a configuration has it.
    pub(crate) fn is_in(&self, spec: &VmSpec) -> bool {
        spec.disks.iter().any(|disk| self.is_disk(disk))
            || spec.nics.iter().any(|nic| self.is_nic(nic))
    }

    /// Takes it out of a configuration. What firmware boots from stays what it was. Tells whether it was there.
    pub(crate) fn remove_from(&self, spec: &mut VmSpec) -> bool {
        if let Some(at) = spec.disks.iter().position(|disk| self.is_disk(disk)) {
            spec.disks.remove(at);
            renumber(&mut spec.boot.order, |device| match *device {
                BootDevice::Disk(number) => left_of(number, at).map(BootDevice::Disk),
                other => Some(other),
            });
            return true;
        }
        if let Some(at) = spec.nics.iter().position(|nic| self.is_nic(nic)) {
            spec.nics.remove(at);
            renumber(&mut spec.boot.order, |device| match *device {
                BootDevice::Nic(number) => left_of(number, at).map(BootDevice::Nic),
                other => Some(other),
            });
            return true;
        }
        false
    }

    /// Adds it to what a guest runs with, unless it is there.
    pub(crate) fn add_to(&self, note: &mut LaunchNote) {
        if self.is_in(&note.spec) {
            return;
        }
        match self {
            Self::Disk { id, entry } => {
                note.disks.push(*id);
                note.spec.disks.push(entry.clone());
            }
            Self::Nic(nic) => note.spec.nics.push(nic.clone()),
        }
    }

    /// Takes it out of what a guest runs with.
    pub(crate) fn leave(&self, note: &mut LaunchNote) {
        let at = note.spec.disks.iter().position(|disk| self.is_disk(disk));
        if let Some(at) = at.filter(|&at| at < note.disks.len()) {
            note.disks.remove(at);
        }
        self.remove_from(&mut note.spec);
    }

    /// All that a guest runs with.
    pub(crate) fn all(note: &LaunchNote) -> Vec<Self> {
        let disks = note.disks.iter().zip(&note.spec.disks);
        let disks = disks.map(|(id, entry)| Self::Disk {
            id: *id,
            entry: entry.clone(),
        });
        let nics = note.spec.nics.iter().cloned().map(Self::Nic);
        disks.chain(nics).collect()
    }
}

fn renumber(order: &mut Vec<BootDevice>, renamed: impl Fn(&BootDevice) -> Option<BootDevice>) {
    *order = order.iter().filter_map(renamed).collect();
}

/// The number of an entry after that at `gone` is removed.
fn left_of(number: u8, gone: usize) -> Option<u8> {
    match usize::from(number).cmp(&gone) {
        std::cmp::Ordering::Less => Some(number),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(number - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_booted_from_stays_when_others_leave() {
        let spec: VmSpec = serde_json::from_str(
            r#"{"name": "web", "boot": {"order": ["nic1", "disk2", "disk0", "cdrom0", "disk1"]},
                "disks": [{"disk": "a"}, {"disk": "b"}, {"disk": "c"}],
                "nics": [{"mac": "52:54:00:00:00:01"}, {"mac": "52:54:00:00:00:02"}]}"#,
        )
        .unwrap();
        let order = |device: &Device| {
            let mut spec = spec.clone();
            assert!(device.is_in(&spec));
            assert!(device.remove_from(&mut spec));
            assert!(!device.remove_from(&mut spec));
            spec.boot
                .order
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let disk = |number: usize| Device::Disk {
            id: Uuid::nil(),
            entry: spec.disks[number].clone(),
        };
        assert_eq!(order(&disk(1)), ["nic1", "disk1", "disk0", "cdrom0"]);
        assert_eq!(order(&disk(2)), ["nic1", "disk0", "cdrom0", "disk1"]);
        let nic = Device::Nic(spec.nics[0].clone());
        assert_eq!(order(&nic)[..2], ["nic0", "disk2"]);
        let nic = Device::Nic(spec.nics[1].clone());
        assert_eq!(order(&nic)[0], "disk2");
    }
}
