//! The disks of this host: what is on them, and whether they are in use.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::find_medium;
use crate::boot::{DATA, DATA_LABEL};
use crate::disk::{BlockDevice, block_devices, filesystem_on, mounts, patiently};
use crate::nvmf;

/// Bytes at the beginning of a disk that are looked at when nothing is recognised.
const LOOKED_AT: usize = 1 << 20;

/// A disk of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDisk {
    /// The disk.
    pub device: BlockDevice,
    /// What is on it, a line each; nothing when it is blank.
    pub contents: Vec<String>,
    /// Why it cannot be written to.
    pub in_use: Option<String>,
}

impl HostDisk {
    /// What it is called by: its serial number, or the kernel's name for a disk without one.
    pub fn identity(&self) -> &str {
        self.device.serial.as_deref().unwrap_or(&self.device.name)
    }
}

/// Every disk there is. CD-ROM drives and loop devices are none.
///
/// # Errors
/// When devices or mounts cannot be listed.
pub fn host_disks() -> io::Result<Vec<HostDisk>> {
    let devices = block_devices()?;
    let medium = find_medium()?;
    let mounted: Vec<(PathBuf, PathBuf)> = mounts()?
        .into_iter()
        .filter_map(|mount| Some((mount.device()?.to_owned(), mount.target.clone())))
        .collect();
    let exported = nvmf::exported_devices();
    let disks = devices.iter().filter(|device| is_disk(device));
    let disks = disks.map(|disk| {
        let parts = devices
            .iter()
            .filter(|device| device.parent.as_ref() == Some(&disk.name));
        let parts: Vec<&BlockDevice> = parts.collect();
        HostDisk {
            device: disk.clone(),
            contents: contents(disk, &parts),
            in_use: in_use(disk, &parts, medium.as_deref(), &mounted, &exported),
        }
    });
    Ok(disks.collect())
}

fn is_disk(device: &BlockDevice) -> bool {
    let other = ["sr", "loop", "dm-", "md", "zram"];
    device.parent.is_none() && !other.iter().any(|kind| device.name.starts_with(kind))
}

fn contents(disk: &BlockDevice, parts: &[&BlockDevice]) -> Vec<String> {
    if parts.is_empty() {
        return match filesystem(disk) {
            Some(filesystem) => vec![filesystem],
            None => match is_blank(disk) {
                Some(true) => Vec::new(),
                Some(false) => vec!["something that is not recognised".to_owned()],
                None => vec!["it does not answer at present".to_owned()],
            },
        };
    }
    let line = |part: &&BlockDevice| {
        let number = part.partition.unwrap_or(0);
        let name = part.partition_name.as_deref();
        let name = name.map_or_else(String::new, |name| format!(" \"{}\"", printable(name)));
        let inside = match part.is_export() {
            true => "what other machines have on it".to_owned(),
            false => filesystem(part).unwrap_or_else(|| "no filesystem that is known".to_owned()),
        };
        let mib = part.size >> 20;
        format!("partition {number}{name}, {mib} MiB: {inside}")
    };
    parts.iter().map(line).collect()
}

fn filesystem(device: &BlockDevice) -> Option<String> {
    let found = filesystem_on(device).ok()??;
    let kind = found.kind.name();
    Some(if found.label.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind} \"{}\"", printable(&found.label))
    })
}

/// Labels are written by strangers.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(72).collect()
}

/// A disk that cannot be read is not blank. `None` for one of another machine that does not answer.
fn is_blank(disk: &BlockDevice) -> Option<bool> {
    let path = disk.path();
    match disk.is_remote() {
        true => patiently(&disk.name, move || begins_with_zeroes(&path)),
        false => Some(begins_with_zeroes(&path)),
    }
}

fn begins_with_zeroes(path: &Path) -> bool {
    let mut head = vec![0; LOOKED_AT];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut head, 0));
    read.is_ok() && head.iter().all(|byte| *byte == 0)
}

fn in_use(
    disk: &BlockDevice,
    parts: &[&BlockDevice],
    medium: Option<&Path>,
    mounted: &[(PathBuf, PathBuf)],
    exported: &[PathBuf],
) -> Option<String> {
    if disk.read_only {
        return Some("it is write-protected".to_owned());
    }
    for device in parts.iter().copied().chain([disk]) {
        let path = device.path();
        if let Some((_, target)) = mounted.iter().find(|(source, _)| *source == path) {
            return Some(match target.to_str() {
                Some(DATA) => format!("it holds the data of this host ({DATA_LABEL})"),
                _ => format!("{} is mounted on {}", path.display(), target.display()),
            });
        }
        if exported.contains(&path) {
            return Some("it is exported to other machines".to_owned());
        }
        if medium == Some(path.as_path()) {
            return Some("this host was started from it".to_owned());
        }
        if has_holders(&device.name) {
            return Some(format!("{} is part of another device", path.display()));
        }
    }
    None
}

/// Whether a device is built on top, such as a RAID.
fn has_holders(name: &str) -> bool {
    let holders = Path::new("/sys/class/block").join(name).join("holders");
    fs::read_dir(holders).is_ok_and(|mut holders| holders.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, parent: Option<&str>) -> BlockDevice {
        BlockDevice {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            partition: parent.map(|_| 1),
            partition_name: None,
            size: 1 << 30,
            logical_block: 512,
            model: None,
            serial: None,
            transport: None,
            removable: false,
            read_only: false,
            rotational: false,
        }
    }

    #[test]
    fn disks_are_in_use_by_their_partitions_too() {
        let (whole, part) = (disk("sda", None), disk("sda1", Some("sda")));
        let mounted = [(PathBuf::from("/dev/sda1"), PathBuf::from("/data"))];
        let why = in_use(&whole, &[&part], None, &mounted, &[]).unwrap();
        assert!(why.contains("holds the data"), "{why}");
        let medium = Some(Path::new("/dev/sda"));
        let why = in_use(&whole, &[], medium, &[], &[]).unwrap();
        assert!(why.contains("started from it"), "{why}");
        let other = disk("none", None);
        assert_eq!(in_use(&other, &[], medium, &mounted, &[]), None);
        let exported = [PathBuf::from("/dev/sda1")];
        let why = in_use(&whole, &[&part], None, &[], &exported).unwrap();
        assert!(why.contains("other machines"), "{why}");
        let protected = BlockDevice {
            read_only: true,
            ..whole
        };
        assert!(in_use(&protected, &[], None, &[], &[]).is_some());
    }

    #[test]
    fn only_zeroes_are_blank() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        assert!(begins_with_zeroes(file.path()));
        file.as_file().write_all_at(b"LUKS", 4096).unwrap();
        assert!(!begins_with_zeroes(file.path()));
        assert!(!begins_with_zeroes(Path::new("/nowhere")));
    }

    #[test]
    fn this_machine_can_be_read() {
        host_disks().unwrap();
    }
}
