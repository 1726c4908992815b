//! Room on the filesystem: refusing early, and a reserve to delete things with, and to log in for that.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::StoreOptions;
use crate::StoreError;

/// Watches over the room of the filesystem the store is on.
#[derive(Debug)]
pub(super) struct Reserve {
    directory: PathBuf,
    file: PathBuf,
    size: u64,
    min_free: u64,
}

impl Reserve {
    /// Sets the reserve aside if there is room for it.
    pub(super) fn new(directory: &Path, options: &StoreOptions) -> Self {
        let reserve = Self {
            directory: directory.to_owned(),
            file: directory.join("reserve"),
            size: options.reserve,
            min_free: options.min_free,
        };
        reserve.replenish(reserve.available());
        reserve
    }

    /// Whether there is room to write more. When there is, the reserve is set aside again.
    ///
    /// sled does not survive running into a full filesystem, so it is kept from it.
    pub(super) fn admit(&self) -> Result<(), StoreError> {
        let available = self.available();
        if available < self.min_free {
            return Err(StoreError::NoSpace);
        }
        self.replenish(available);
        Ok(())
    }

    /// Size of the reserve in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Gives the reserve up, for writes that make room or are needed for that; tells whether it was there.
    pub(super) fn give_up(&self) -> bool {
        match fs::remove_file(&self.file) {
            Ok(()) => {
                tracing::warn!("the filesystem is full: using the store's reserve");
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "the store's reserve cannot be given up"),
        }
        false
    }

    /// Free bytes; a filesystem that does not tell is taken to have room.
    fn available(&self) -> u64 {
        nix::sys::statvfs::statvfs(&self.directory).map_or(u64::MAX, |stat| {
            stat.blocks_available().saturating_mul(stat.fragment_size())
        })
    }

    fn replenish(&self, available: u64) {
        if self.size == 0
            || self.file.exists()
            || available < self.min_free.saturating_add(self.size.saturating_mul(2))
        {
            return;
        }
        let allocate = || -> io::Result<()> {
            let file = File::create(&self.file)?;
            let size = i64::try_from(self.size).map_err(io::Error::other)?;
            Ok(fallocate(&file, FallocateFlags::empty(), 0, size)?)
        };
        if let Err(error) = allocate() {
            tracing::debug!(%error, "no reserve could be set aside");
            // Half a reserve would count as a whole one.
            let _ = fs::remove_file(&self.file);
        }
    }
}
