//! Putting Lodge onto a disk.
//!
//! The order is what makes it safe: the disk is made unable to start first and able to start last, so that a power cut at any
//! moment leaves a disk that starts nothing or one that is whole.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{ControlFlow, Range};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::image::write_image;
use super::layout::{self, LEAST_SIZE, Part};
use super::{HostDisk, InstallError, Medium, boot_loader};
use crate::boot::DATA_LABEL;
use crate::disk::{ExclusiveDisk, make_xfs};

/// Label of the data while they are not all there.
const LABEL_UNTIL_THEN: &str = "lodge-new";

/// How long the kernel may take to show a new partition.
const PATIENCE: Duration = Duration::from_secs(20);

/// Blocks of other sizes: the files of the boot loader are made for this one.
const BLOCK: u32 = 512;

nix::ioctl_write_ptr!(set_label, 0x94, 50, [u8; 256]);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Comparing the medium with its checksums.
    Checking,
    /// Writing the image.
    Writing,
    /// Reading the image back.
    Verifying,
    /// Making the filesystem for the data.
    Formatting,
}

/// Hears how far a step is: bytes done, of how many. [`ControlFlow::Break`] cancels.
pub type Progress<'a> = &'a mut dyn FnMut(Step, u64, u64) -> ControlFlow<()>;

/// What is to be installed, and where.
#[derive(Debug)]
pub struct Job<'a> {
    /// The disk. All that is on it is lost.
    pub disk: &'a HostDisk,
    /// The image.
    pub medium: &'a Medium,
    /// Whether the disk gets the data, too.
    pub with_data: bool,
    /// Whether the disk is to be marked for a BIOS.
    pub bios: bool,
    /// A folder for mounting things.
    pub work: &'a Path,
}

/// A disk with everything on it, that does not start yet.
#[derive(Debug)]
pub struct Installed {
    parts: Vec<(Part, Range<u64>)>,
    loader: BootLoader,
    name: String,
    path: PathBuf,
    with_data: bool,
}

#[derive(Debug)]
struct BootLoader {
    sector: Vec<u8>,
    program: Vec<u8>,
    esp: Vec<u8>,
}

/// The device of a partition.
pub fn partition(disk: &HostDisk, part: Part) -> PathBuf {
    device(&disk.device.name, part)
}

pub(super) fn device(disk: &str, part: Part) -> PathBuf {
    // nvme0n1p1, mmcblk0p1, but sda1.
    let between = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    let name = format!("{disk}{between}{}", part.number());
    Path::new("/dev").join(name.replace('!', "/"))
}

/// Writes everything but what makes the disk start.
///
/// # Errors
/// [`InstallError`]. Before the first write nothing has changed; afterwards the disk starts nothing.
pub fn install(job: &Job<'_>, progress: Progress<'_>) -> Result<Installed, InstallError> {
    refuse(job.disk)?;
    let length = job.medium.length()?;
    let room = Part::ImageA.size().unwrap_or(0);
    if length == 0 || length > room {
        return Err(InstallError::Damaged {
            device: job.medium.device().to_owned(),
            problem: format!("an image of {length} bytes; there is room for {room}"),
        });
    }
    job.medium
        .check(&mut |done, total| progress(Step::Checking, done, total))?;
    let loader = BootLoader {
        sector: job.medium.read("boot/disk/boot.img")?,
        program: job.medium.read("boot/disk/core.img")?,
        esp: job.medium.read("boot/disk/esp.img.zst")?,
    };
    let name = job.disk.device.name.clone();
    let parts = layout::layout(job.disk.device.size, job.with_data);
    {
        // For no longer: nothing on the disk could be mounted.
        let path = job.disk.device.path();
        let disk = ExclusiveDisk::open(&job.disk.device);
        make_partitions(disk.map_err(InstallError::at(&path))?, job, &parts)?;
    }
    let image = device(&name, Part::ImageA);
    let from = job.medium.device();
    let source = File::open(from).map_err(InstallError::at(from))?;
    write_image(&source, from, length, &image, &mut |done| {
        progress(Step::Writing, done, length)
    })?;
    {
        let written = Medium::open(&image, &job.work.join("written"))?;
        written.check(&mut |done, total| progress(Step::Verifying, done, total))?;
    }
    if job.with_data {
        if progress(Step::Formatting, 0, 1).is_break() {
            return Err(InstallError::Cancelled);
        }
        make_xfs(&device(&name, Part::Data), LABEL_UNTIL_THEN, None)?;
    }
    Ok(Installed {
        parts,
        loader,
        name,
        path: job.disk.device.path(),
        with_data: job.with_data,
    })
}

impl Installed {
    /// The partition for the data, if the disk was to have one.
    pub fn data(&self) -> Option<PathBuf> {
        self.with_data.then(|| device(&self.name, Part::Data))
    }

    /// Makes the disk start. `data` is where the partition with the data is mounted, which are all there; they get their
    /// label.
    ///
    /// # Errors
    /// [`InstallError`]: the disk starts nothing then, or does not find its data.
    pub fn finish(self, data: Option<&Path>) -> Result<(), InstallError> {
        if let Some(data) = data {
            label(data)?;
        }
        let esp = device(&self.name, Part::Esp);
        write_compressed(&self.loader.esp, &esp)?;
        let program_at = self.start(Part::BiosBoot);
        let invalid = |error: boot_loader::BootLoaderError| InstallError::Host {
            what: "the boot loader".to_owned(),
            source: io::Error::other(error),
        };
        let program = boot_loader::program(self.loader.program, program_at).map_err(invalid)?;
        let sector = boot_loader::sector(&self.loader.sector, program_at).map_err(invalid)?;
        write_at_start(&device(&self.name, Part::BiosBoot), &program)?;
        write_at_start(&self.path, &sector)
    }

    fn start(&self, part: Part) -> u64 {
        let mut parts = self.parts.iter();
        parts
            .find(|(other, _)| *other == part)
            .map_or(0, |(_, range)| range.start)
    }
}

fn write_at_start(path: &Path, content: &[u8]) -> Result<(), InstallError> {
    let written = File::options().write(true).open(path).and_then(|file| {
        file.write_all_at(content, 0)?;
        file.sync_all()
    });
    written.map_err(InstallError::at(path))
}

fn refuse(disk: &HostDisk) -> Result<(), InstallError> {
    let problem = if let Some(use_of_it) = &disk.in_use {
        use_of_it.clone()
    } else if disk.device.size < LEAST_SIZE {
        let (size, least) = (disk.device.size >> 20, LEAST_SIZE >> 20);
        format!("it has {size} MiB, {least} MiB are needed")
    } else if disk.device.logical_block != BLOCK {
        let block = disk.device.logical_block;
        format!(
            "its blocks have {block} bytes, and only disks with blocks of {BLOCK} can be started from so far"
        )
    } else {
        return Ok(());
    };
    Err(InstallError::Unusable {
        disk: disk.device.name.clone(),
        problem,
    })
}

/// Has the disk for no longer than needed: nothing on it could be mounted.
fn make_partitions(
    mut disk: ExclusiveDisk,
    job: &Job<'_>,
    parts: &[(Part, Range<u64>)],
) -> Result<(), InstallError> {
    let failed = || InstallError::doing(format!("partitioning {}", job.disk.device.name));
    let starts = parts.iter().map(|(_, range)| range.start);
    disk.wipe(starts).map_err(failed())?;
    layout::write_table(&mut disk.file, u64::from(BLOCK), parts, job.bios).map_err(failed())?;
    disk.file.sync_all().map_err(failed())?;
    disk.reread_partitions().map_err(failed())?;
    let deadline = Instant::now() + PATIENCE;
    for (part, _) in parts {
        let path = partition(job.disk, *part);
        while !path.exists() {
            if Instant::now() > deadline {
                let missing = io::Error::from(io::ErrorKind::NotFound);
                return Err(InstallError::at(&path)(missing));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn write_compressed(content: &[u8], to: &Path) -> Result<(), InstallError> {
    let mut target = File::options()
        .write(true)
        .open(to)
        .map_err(InstallError::at(to))?;
    let room = target
        .seek(SeekFrom::End(0))
        .and_then(|room| target.rewind().map(|()| room))
        .map_err(InstallError::at(to))?;
    let unpacked = zstd::stream::read::Decoder::new(content)
        .and_then(|stream| io::copy(&mut stream.take(room), &mut target));
    unpacked.map_err(InstallError::at(to))?;
    target.sync_all().map_err(InstallError::at(to))
}

/// Gives the filesystem that is mounted there its name (Linux, `FS_IOC_SETFSLABEL`), and sees to it that all of it is on
/// the disk first.
fn label(mounted: &Path) -> Result<(), InstallError> {
    let folder = File::open(mounted).map_err(InstallError::at(mounted))?;
    let failed = |errno: nix::errno::Errno| InstallError::at(mounted)(errno.into());
    nix::unistd::syncfs(&folder).map_err(failed)?;
    let mut name = [0; 256];
    name[..DATA_LABEL.len()].copy_from_slice(DATA_LABEL.as_bytes());
    // SAFETY: the call reads the 256 bytes it is given.
    unsafe { set_label(folder.as_raw_fd(), &raw const name) }.map_err(failed)?;
    nix::unistd::syncfs(&folder).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_the_kernel_does() {
        let name = |disk: &str| device(disk, Part::Data).display().to_string();
        assert_eq!(name("sda"), "/dev/sda5");
        assert_eq!(name("vdb"), "/dev/vdb5");
        assert_eq!(name("nvme0n1"), "/dev/nvme0n1p5");
        assert_eq!(name("mmcblk0"), "/dev/mmcblk0p5");
        assert_eq!(name("cciss!c0d0"), "/dev/cciss/c0d0p5");
    }
}
