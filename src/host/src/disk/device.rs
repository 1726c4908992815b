//! The block devices of this machine, from sysfs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attribute;

/// A disk, a CD-ROM drive or a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// The kernel's name, e.g. `nvme0n1p2`. It may change from boot to boot.
    pub name: String,
    /// For a partition the disk it is on.
    pub parent: Option<String>,
    /// For a partition its number, from 1.
    pub partition: Option<u32>,
    /// For a GPT partition its name.
    pub partition_name: Option<String>,
    /// Bytes; zero for a drive without a medium.
    pub size: u64,
    /// Bytes of the smallest unit that can be read or written.
    pub logical_block: u32,
    /// The maker's name for it.
    pub model: Option<String>,
    /// Its serial number, which stays when cables are swapped.
    pub serial: Option<String>,
    /// How it is attached: `nvme`, `usb`, `ata`, `virtio`, `scsi`, `mmc`; `nvme-tcp` and the like for a disk of another machine.
    pub transport: Option<String>,
    /// Whether the medium can be taken out.
    pub removable: bool,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Whether it turns.
    pub rotational: bool,
}

impl BlockDevice {
    /// Its node, e.g. `/dev/sda`.
    pub fn path(&self) -> PathBuf {
        // In the kernel's names a slash is written as an exclamation mark (cciss!c0d0).
        Path::new("/dev").join(self.name.replace('!', "/"))
    }

    /// Whether it is in another machine, and may take its time to answer.
    pub fn is_remote(&self) -> bool {
        let transport = self.transport.as_deref();
        transport.is_some_and(|transport| transport.starts_with("nvme-"))
    }

    /// Whether it belongs to other machines, who write what they like there.
    pub fn is_export(&self) -> bool {
        self.partition_name.as_deref() == Some(EXPORT_PARTITION)
    }
}

/// Name of the partition that other machines use by NVMe/TCP. Nothing on it is for this host.
pub const EXPORT_PARTITION: &str = "lodge-export";

/// Device classes that are never a medium.
const NOT_MEDIA: [&str; 4] = ["ram", "zram", "nbd", "fd"];

/// Every block device with a medium in it, disks before their partitions, in the order of their names.
/// Loop devices without a file, RAM disks and floppy drives are left out.
pub fn block_devices() -> io::Result<Vec<BlockDevice>> {
    devices_in(Path::new("/sys/class/block"))
}

fn devices_in(class: &Path) -> io::Result<Vec<BlockDevice>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(class)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.insert(name);
        }
    }
    let is_media = |name: &&String| {
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
        !NOT_MEDIA.contains(&kind)
    };
    let devices = names
        .iter()
        .filter(is_media)
        .filter_map(|name| device(class, name));
    Ok(devices.filter(|device| device.size > 0).collect())
}

/// Reads one device; `None` when it has vanished meanwhile.
fn device(class: &Path, name: &str) -> Option<BlockDevice> {
    let dir = fs::canonicalize(class.join(name)).ok()?;
    let partition = number(&dir.join("partition"));
    // A partition's folder lies in its disk's, which has the attributes they share.
    let disk = match partition {
        Some(_) => dir.parent()?.to_owned(),
        None => dir.clone(),
    };
    let sectors: u64 = number(&dir.join("size"))?;
    let flag = |path: &str| number::<u8>(&disk.join(path)) == Some(1);
    if flag("hidden") {
        // One of several paths to a disk, which is listed by itself.
        return None;
    }
    Some(BlockDevice {
        name: name.to_owned(),
        parent: match partition {
            Some(_) => Some(disk.file_name()?.to_str()?.to_owned()),
            None => None,
        },
        partition,
        partition_name: partition.and_then(|_| uevent_value(&dir, "PARTNAME")),
        size: sectors.checked_mul(512)?,
        logical_block: number(&disk.join("queue/logical_block_size")).unwrap_or(512),
        model: said(&disk.join("device/model")),
        serial: serial(&disk),
        transport: transport(&disk),
        removable: flag("removable"),
        read_only: flag("ro") || number::<u8>(&dir.join("ro")) == Some(1),
        rotational: flag("queue/rotational"),
    })
}

fn number<N: std::str::FromStr>(path: &Path) -> Option<N> {
    attribute(path)?.parse().ok()
}

fn uevent_value(dir: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join("uevent")).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.to_owned())
}

/// What a device says of itself: sticks and disks of other machines say what they like.
fn said(path: &Path) -> Option<String> {
    let text: String = attribute(path)?
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// NVMe, virtio and MMC say it plainly; SCSI disks in vital product data page 0x80 (SPC-4 section 7.8.4).
fn serial(disk: &Path) -> Option<String> {
    let serial = said(&disk.join("device/serial")).or_else(|| said(&disk.join("serial")));
    let namespace = number::<u32>(&disk.join("nsid")).filter(|_| fabric(disk).is_some());
    match (serial, namespace) {
        // All disks of a remote subsystem have its serial number.
        (Some(serial), Some(namespace)) if namespace > 1 => Some(format!("{serial}-{namespace}")),
        (Some(serial), _) => Some(serial),
        (None, _) => {
            let page = fs::read(disk.join("device/vpd_pg80")).ok()?;
            let text = String::from_utf8_lossy(page.get(4..)?).trim().to_owned();
            (!text.is_empty()).then_some(text)
        }
    }
}

/// The network that an NVMe disk is reached by, such as `tcp`. The kernel puts a disk with several paths below its subsystem, beside
/// the controllers that lead to it.
fn fabric(disk: &Path) -> Option<String> {
    let device = disk.join("device");
    let of = |path: &Path| attribute(&path.join("transport")).filter(|name| name != "pcie");
    of(&device).or_else(|| {
        let beside = fs::read_dir(&device).ok()?.flatten();
        let mut controllers = beside.filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("nvme"));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        });
        controllers.find_map(|entry| of(&entry.path()))
    })
}

/// Read off the path of its folder, whose components are the buses from the root to the device.
fn transport(disk: &Path) -> Option<String> {
    if let Some(fabric) = fabric(disk) {
        return Some(format!("nvme-{fabric}"));
    }
    let path = disk.to_str()?;
    let known = [
        ("/nvme", "nvme"),
        ("/usb", "usb"),
        ("/ata", "ata"),
        ("/virtio", "virtio"),
        ("/mmc", "mmc"),
        ("/host", "scsi"),
    ];
    known
        .iter()
        .find(|(part, _)| path.contains(part))
        .map(|(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A small sysfs with one SATA disk of two partitions, an empty CD-ROM drive and a RAM disk.
    fn fixture(root: &Path) -> PathBuf {
        let class = root.join("class");
        fs::create_dir_all(&class).unwrap();
        let file = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let sda = root.join("devices/pci0000:00/ata1/host0/block/sda");
        file(sda.join("size"), "2048\n");
        file(sda.join("removable"), "0\n");
        file(sda.join("ro"), "0\n");
        file(sda.join("queue/rotational"), "1\n");
        file(sda.join("queue/logical_block_size"), "4096\n");
        file(sda.join("device/model"), "ACME  \n");
        file(sda.join("device/vpd_pg80"), "\0_\0_  SER123");
        file(sda.join("sda1/size"), "1024\n");
        file(sda.join("sda1/partition"), "1\n");
        file(
            sda.join("sda1/uevent"),
            "DEVNAME=sda1\nPARTN=1\nPARTNAME=lodge-esp\n",
        );
        let sr0 = root.join("devices/pci0000:00/ata2/host1/block/sr0");
        file(sr0.join("size"), "0\n");
        let ram = root.join("devices/virtual/block/ram0");
        file(ram.join("size"), "9999\n");
        for (name, target) in [
            ("sda", &sda),
            ("sda1", &sda.join("sda1")),
            ("sr0", &sr0),
            ("ram0", &ram),
        ] {
            symlink(target, class.join(name)).unwrap();
        }
        class
    }

    #[test]
    fn disks_and_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let devices = devices_in(&fixture(&root)).unwrap();
        assert_eq!(devices.len(), 2);
        let [disk, part] = &devices[..] else { panic!() };
        assert_eq!((disk.name.as_str(), disk.size), ("sda", 1 << 20));
        assert_eq!(disk.serial.as_deref(), Some("SER123"));
        assert_eq!(disk.model.as_deref(), Some("ACME"));
        assert_eq!(disk.transport.as_deref(), Some("ata"));
        assert!(disk.rotational && !disk.removable && !disk.read_only);
        assert_eq!(part.parent.as_deref(), Some("sda"));
        assert_eq!(part.partition_name.as_deref(), Some("lodge-esp"));
        assert_eq!(part.logical_block, 4096);
        assert_eq!(part.path(), Path::new("/dev/sda1"));
    }

    #[test]
    fn disks_of_other_machines_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let class = root.join("class");
        fs::create_dir_all(&class).unwrap();
        let file = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let subsystem = root.join("devices/virtual/nvme-subsystem/nvme-subsys0");
        let controller = root.join("devices/virtual/nvme-fabrics/ctl/nvme0");
        file(subsystem.join("serial"), "A1\u{1b}[2J\n");
        file(subsystem.join("model"), "\u{7}\n");
        file(controller.join("transport"), "tcp\n");
        symlink(&controller, subsystem.join("nvme0")).unwrap();
        for (disk, namespace) in [("nvme0n1", "1\n"), ("nvme0n2", "7\n")] {
            let disk = subsystem.join(disk);
            file(disk.join("size"), "8\n");
            file(disk.join("nsid"), namespace);
            symlink(&subsystem, disk.join("device")).unwrap();
            symlink(&disk, class.join(disk.file_name().unwrap())).unwrap();
        }
        let path = controller.join("nvme0c0n1");
        file(path.join("size"), "8\n");
        file(path.join("hidden"), "1\n");
        symlink(&path, class.join("nvme0c0n1")).unwrap();
        let devices = devices_in(&class).unwrap();
        let serials: Vec<_> = devices.iter().map(|d| d.serial.as_deref()).collect();
        assert_eq!(serials, [Some("A1[2J"), Some("A1[2J-7")]);
        assert!(devices.iter().all(BlockDevice::is_remote));
        assert_eq!(devices[0].transport.as_deref(), Some("nvme-tcp"));
        assert_eq!(devices[0].model, None);
        fs::write(controller.join("transport"), "pcie\n").unwrap();
        let devices = devices_in(&class).unwrap();
        assert_eq!(devices[0].transport.as_deref(), Some("nvme"));
        assert_eq!(devices[1].serial.as_deref(), Some("A1[2J"));
    }

    #[test]
    fn this_machine_can_be_read() {
        block_devices().unwrap();
    }
}
