//! The image that is installed: the medium that the host was started from, or the partition.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::contents::{self, Contents};
use super::{InstallError, Part, Slot};
use crate::disk::{
    FilesystemKind, MountFlags, block_devices, filesystems, mount, unmount, with_label,
};

/// Label of images.
const LABEL: &str = "LODGE";

/// Largest file that is held in memory.
const LARGEST_FILE: u64 = 16 << 20;

const FLAGS: MountFlags = MountFlags::MS_RDONLY
    .union(MountFlags::MS_NOSUID)
    .union(MountFlags::MS_NODEV)
    .union(MountFlags::MS_NOEXEC);

/// An image, mounted for reading until this is dropped.
#[derive(Debug)]
pub struct Medium {
    device: PathBuf,
    at: PathBuf,
    contents: Contents,
}

/// The device with the image that this host runs: the partition it was started from, else a stick or a CD. It is in this machine.
///
/// # Errors
/// When the block devices cannot be listed.
pub fn find_medium() -> io::Result<Option<PathBuf>> {
    let mut devices = block_devices()?;
    devices.retain(|device| !device.is_remote());
    let found = filesystems(&devices);
    let started = Slot::started().map(|slot| slot.part().name());
    let installed = [Part::ImageA, Part::ImageB].map(Part::name);
    let medium = with_label(&found, LABEL).into_iter().find(|image| {
        let name = image.device.partition_name.as_deref();
        let right = match started {
            Some(part) => name == Some(part),
            None => name.is_none_or(|name| !installed.contains(&name)),
        };
        image.filesystem.kind == FilesystemKind::Iso9660 && right
    });
    Ok(medium.map(|image| image.device.path()))
}

impl Medium {
    /// Mounts the image on `device` at the folder `at`, which is made.
    ///
    /// # Errors
    /// When there is none, or it does not say what it is.
    pub fn open(device: &Path, at: &Path) -> Result<Self, InstallError> {
        let source = device.display().to_string();
        mount(&source, at, FilesystemKind::Iso9660.name(), FLAGS, "")
            .map_err(InstallError::at(device))?;
        let mut medium = Self {
            device: device.to_owned(),
            at: at.to_owned(),
            contents: Contents {
                version: String::new(),
                files: Default::default(),
            },
        };
        let text = medium.read_small("boot/contents", contents::LARGEST)?;
        let parsed = Contents::parse(&String::from_utf8_lossy(&text));
        medium.contents = parsed.map_err(|problem| medium.damaged(problem))?;
        Ok(medium)
    }

    /// What it says of itself.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The device it is on.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Compares everything that is started with its checksum. `progress` hears of bytes and their sum.
    ///
    /// # Errors
    /// When something differs or cannot be read.
    pub fn check(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), InstallError> {
        let mut files = Vec::new();
        for (path, checksum) in &self.contents.files {
            let (file, length) = self.open_file(path)?;
            files.push((path, checksum, file, length));
        }
        let total = files.iter().map(|(.., length)| length).sum();
        let (mut done, mut buffer) = (0, vec![0; 1 << 20]);
        for (path, expected, mut file, _) in files {
            let mut hash = Sha256::new();
            loop {
                let count = file
                    .read(&mut buffer)
                    .map_err(|e| self.unreadable(path, &e))?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
                done += count as u64;
                if progress(done, total).is_break() {
                    return Err(InstallError::Cancelled);
                }
            }
            if hash.finalize()[..] != expected[..] {
                return Err(self.damaged(format!("the checksum of {path} is another")));
            }
        }
        Ok(())
    }

    /// Reads a file that [`Contents`] names, and compares it with its checksum.
    ///
    /// # Errors
    /// When it differs or cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, InstallError> {
        let content = self.read_small(path, LARGEST_FILE)?;
        let expected = self.contents.files.get(path);
        if expected.is_none_or(|expected| Sha256::digest(&content)[..] != expected[..]) {
            return Err(self.damaged(format!("the checksum of {path} is another")));
        }
        Ok(content)
    }

    /// Bytes of the filesystem from the beginning of the device (ECMA-119, 8.4.8 and 8.4.12).
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn length(&self) -> Result<u64, InstallError> {
        let mut descriptor = [0; 132];
        File::open(&self.device)
            .and_then(|device| device.read_exact_at(&mut descriptor, 16 * 2048))
            .map_err(InstallError::at(&self.device))?;
        let byte = |at: usize| u64::from(descriptor[at]);
        let blocks = byte(80) | byte(81) << 8 | byte(82) << 16 | byte(83) << 24;
        Ok(blocks * (byte(128) | byte(129) << 8))
    }

    fn open_file(&self, path: &str) -> Result<(File, u64), InstallError> {
        let opened = File::open(self.at.join(path));
        let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        opened.map_err(|error| self.unreadable(path, &error))
    }

    fn read_small(&self, path: &str, most: u64) -> Result<Vec<u8>, InstallError> {
        let (file, length) = self.open_file(path)?;
        if length > most {
            return Err(self.damaged(format!("{path} has {length} bytes")));
        }
        let mut content = Vec::new();
        file.take(most)
            .read_to_end(&mut content)
            .map_err(|error| self.unreadable(path, &error))?;
        Ok(content)
    }

    fn damaged(&self, problem: String) -> InstallError {
        InstallError::Damaged {
            device: self.device.clone(),
            problem,
        }
    }

    fn unreadable(&self, path: &str, error: &io::Error) -> InstallError {
        self.damaged(format!("{path} cannot be read: {error}"))
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at) {
            tracing::warn!(%error, at = %self.at.display(), "an image stays mounted");
        }
    }
}
