//! Block devices, what is on them, and mounting it. No udev, no blkid: sysfs and superblocks are read directly.

mod device;
mod health;
mod mount;
mod nfs;
mod patience;
mod probe;
mod wipe;
mod xfs;

pub use device::{BlockDevice, EXPORT_PARTITION, block_devices};
pub use health::{Health, health};
pub use mount::{Mount, MountFlags, Space, detach, mount, mounts, space, unmount};
pub use nfs::{NfsError, NfsExport, mount_nfs, name_nfs_client};
pub(crate) use patience::patiently;
pub use probe::{Filesystem, FilesystemKind, probe};
pub use wipe::ExclusiveDisk;
pub use xfs::{XfsError, grow_xfs, make_xfs};

use std::io;

/// A filesystem and the device it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The device.
    pub device: BlockDevice,
    /// What is on it.
    pub filesystem: Filesystem,
}

/// What is on each of `devices`, as far as it is recognised.
///
/// A whole disk and its first partition may be the same filesystem (hybrid ISO images); then only the whole disk counts.
/// Devices that cannot be read are passed over: an empty drive is no error. So are those that belong to other machines, and disks of
/// other machines that do not answer soon.
pub fn filesystems(devices: &[BlockDevice]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for device in devices.iter().filter(|device| !device.is_export()) {
        if let Ok(Some(filesystem)) = filesystem_on(device) {
            add_filesystem(&mut found, device, filesystem);
        }
    }
    found
}

/// Looks what is on a device, as [`probe`] does.
///
/// # Errors
/// As there; `TimedOut` for a disk of another machine that does not answer.
pub fn filesystem_on(device: &BlockDevice) -> io::Result<Option<Filesystem>> {
    let path = device.path();
    if !device.is_remote() {
        return probe(&path);
    }
    patiently(&device.name, move || probe(&path))
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// Adds one, unless its disk is already there with the same filesystem.
pub fn add_filesystem(found: &mut Vec<Found>, device: &BlockDevice, filesystem: Filesystem) {
    let same =
        |f: &Found| device.parent.as_deref() == Some(&f.device.name) && f.filesystem == filesystem;
    if !found.iter().any(same) {
        found.push(Found {
            device: device.clone(),
            filesystem,
        });
    }
}

/// Those labelled `label`, letter case aside (FAT keeps none).
pub fn with_label<'a>(found: &'a [Found], label: &str) -> Vec<&'a Found> {
    let labelled = found
        .iter()
        .filter(|f| f.filesystem.label.eq_ignore_ascii_case(label));
    labelled.collect()
}

/// Reads a small file of sysfs, trimmed; `None` when it is missing, empty or not text.
pub(crate) fn attribute(path: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// An errno as an [`io::Error`].
fn from_errno(errno: nix::errno::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}
