//! The disk that this host was started from, with its two images and what decides between them.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::image::write_image;
use super::write::device;
use super::{Contents, Environment, InstallError, Medium, Part, Progress, Slot, Step};
use crate::disk::{BlockDevice, FilesystemKind, MountFlags, block_devices, mount, unmount};

/// The environment block, on the EFI system partition.
const ENVIRONMENT: &str = "grub/grubenv";

const FLAGS: MountFlags = MountFlags::MS_NOSUID
    .union(MountFlags::MS_NODEV)
    .union(MountFlags::MS_NOEXEC)
    .union(MountFlags::MS_SYNCHRONOUS);

/// The disk that this host was started from.
#[derive(Debug, Clone)]
pub struct Home {
    disk: String,
    started: Slot,
    /// A folder for mounting things.
    work: PathBuf,
}

impl Home {
    /// Looks for it. `work` is a folder for mounting things; one at a time may use it.
    ///
    /// # Errors
    /// [`InstallError::NotInstalled`] where the host was started from something else, or from one of several disks that look
    /// alike.
    pub fn find(work: &Path) -> Result<Self, InstallError> {
        let not_here = |problem: &str| InstallError::NotInstalled(problem.to_owned());
        let started = Slot::started()
            .ok_or_else(|| not_here("this host was not started from a disk it is installed on"))?;
        let mut devices = block_devices().map_err(InstallError::doing("the disks of this host"))?;
        // This host was not started from one of another machine, whatever is on it.
        devices.retain(|device| !device.is_remote());
        let disk = only_disk(&devices, started).map_err(not_here)?;
        Ok(Self {
            disk,
            started,
            work: work.to_owned(),
        })
    }

    /// The image that runs.
    pub fn started(&self) -> Slot {
        self.started
    }

    /// What decides which image starts next.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn environment(&self) -> Result<Environment, InstallError> {
        let esp = self.mount_esp(MountFlags::MS_RDONLY)?;
        Environment::read(&esp.file()).map_err(InstallError::at(&esp.device))
    }

    /// Decides which image starts next. On the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; what was decided before stays.
    pub fn decide(&self, environment: Environment) -> Result<(), InstallError> {
        let esp = self.mount_esp(MountFlags::empty())?;
        environment
            .write(&esp.file())
            .map_err(InstallError::at(&esp.device))
    }

    /// What the image in `slot` says of itself.
    ///
    /// # Errors
    /// When there is none.
    pub fn contents(&self, slot: Slot) -> Result<Contents, InstallError> {
        let medium = Medium::open(&device(&self.disk, slot.part()), &self.work.join("image"))?;
        Ok(medium.contents().clone())
    }

    /// Compares what the image in `slot` starts with its checksums.
    ///
    /// # Errors
    /// When there is none, or something differs.
    pub fn check(&self, slot: Slot, progress: Progress<'_>) -> Result<Contents, InstallError> {
        let medium = Medium::open(&device(&self.disk, slot.part()), &self.work.join("image"))?;
        medium.check(&mut |done, total| progress(Step::Verifying, done, total))?;
        Ok(medium.contents().clone())
    }

    /// Writes the first `length` bytes of `source` to the image that does not run, and compares what is there with its checksums. The
    /// running one is what starts from now on, until something else is decided.
    ///
    /// # Errors
    /// [`InstallError`]: there is no other image then.
    pub fn replace_other(
        &self,
        source: &File,
        length: u64,
        progress: Progress<'_>,
    ) -> Result<Contents, InstallError> {
        let to = device(&self.disk, self.started.other().part());
        let room = Part::ImageA.size().unwrap_or(0);
        if length == 0 || length > room {
            let problem = format!("an image of {length} bytes; there is room for {room}");
            return Err(InstallError::Damaged {
                device: to,
                problem,
            });
        }
        self.decide(Environment::only(self.started))?;
        write_image(source, Path::new("the update"), length, &to, &mut |done| {
            progress(Step::Writing, done, length)
        })?;
        self.check(self.started.other(), progress)
    }

    fn mount_esp(&self, more: MountFlags) -> Result<MountedEsp, InstallError> {
        let device = device(&self.disk, Part::Esp);
        let at = self.work.join("esp");
        let (source, kind) = (device.display().to_string(), FilesystemKind::Vfat.name());
        mount(&source, &at, kind, FLAGS | more, "").map_err(InstallError::at(&device))?;
        Ok(MountedEsp { device, at })
    }
}

/// The EFI system partition, mounted until this is dropped.
struct MountedEsp {
    device: PathBuf,
    at: PathBuf,
}

impl MountedEsp {
    fn file(&self) -> PathBuf {
        self.at.join(ENVIRONMENT)
    }
}

impl Drop for MountedEsp {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at) {
            tracing::warn!(%error, at = %self.at.display(), "the EFI system partition stays mounted");
        }
    }
}

/// The disk with the partition that was started.
fn only_disk(devices: &[BlockDevice], started: Slot) -> Result<String, &'static str> {
    let name = started.part().name();
    let mut disks = devices.iter().filter_map(|device| {
        let named = device.partition_name.as_deref() == Some(name);
        let placed = device.partition == Some(started.part().number());
        device.parent.clone().filter(|_| named && placed)
    });
    let disk = disks
        .next()
        .ok_or("the disk that this host was started from is not there any more")?;
    match disks.next() {
        None => Ok(disk),
        Some(_) => {
            Err("Lodge is installed on more than one disk of this host; take the others out")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(disk: &str, number: u32, name: &str) -> BlockDevice {
        BlockDevice {
            name: format!("{disk}{number}"),
            parent: Some(disk.to_owned()),
            partition: Some(number),
            partition_name: Some(name.to_owned()),
            size: 512 << 20,
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
    fn the_disk_is_found_by_the_partition_that_was_started() {
        let mut devices = vec![
            partition("sda", 3, "lodge-a"),
            partition("sda", 4, "lodge-b"),
            partition("sdb", 1, "lodge-b"),
        ];
        assert_eq!(only_disk(&devices, Slot::A), Ok("sda".to_owned()));
        assert_eq!(only_disk(&devices, Slot::B), Ok("sda".to_owned()));
        devices.push(partition("sdc", 4, "lodge-b"));
        assert!(
            only_disk(&devices, Slot::B)
                .unwrap_err()
                .contains("more than one")
        );
        assert!(only_disk(&[], Slot::A).unwrap_err().contains("not there"));
    }
}
