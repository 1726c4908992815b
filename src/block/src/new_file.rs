//! A file in the making: invisible until complete.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags};
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;

use crate::datastore::{DatastoreError, open_beneath};
use crate::name::FileName;

/// No [`FileName`] starts with a dot, so temporary names never clash with real ones.
const PREFIX: &str = ".new-";

/// A file under a hidden temporary name. [`NewFile::commit`] gives it its real
/// name; dropped before, it is removed again.
#[derive(Debug)]
pub struct NewFile {
    directory: OwnedFd,
    file: File,
    /// Empty once the file has its real name.
    temporary: String,
}

pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

impl NewFile {
    pub(crate) fn create(directory: &OwnedFd) -> Result<Self, DatastoreError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let directory = directory
            .try_clone()
            .map_err(|error| DatastoreError::host("duplicating a descriptor", error))?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        loop {
            let time = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_nanos());
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let temporary = format!("{PREFIX}{}-{time:x}-{serial}", std::process::id());
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            match open_beneath(&directory, &temporary, flags, mode) {
                // Left by a process of the same number at the same nanosecond: take the next name.
                Err(DatastoreError::Exists { .. }) => {}
                result => {
                    return Ok(Self {
                        file: File::from(result?),
                        directory,
                        temporary,
                    });
                }
            }
        }
    }

    /// The file, for writing its content.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Flushes the content, gives the file its name, and flushes the directory.
    ///
    /// # Errors
    /// [`DatastoreError::Exists`] when the name is taken, [`DatastoreError::NoSpace`];
    /// the file is removed then.
    pub fn commit(self, name: &FileName) -> Result<(), DatastoreError> {
        self.appear(name, RenameFlags::RENAME_NOREPLACE)
    }

    /// As [`NewFile::commit`], in place of the file that has the name, if there is one: whoever has that open keeps it.
    ///
    /// # Errors
    /// [`DatastoreError::NoSpace`]; the file is removed then, and the other stays.
    pub fn replace(self, name: &FileName) -> Result<(), DatastoreError> {
        self.appear(name, RenameFlags::empty())
    }

    fn appear(mut self, name: &FileName, flags: RenameFlags) -> Result<(), DatastoreError> {
        self.file
            .sync_all()
            .map_err(|error| DatastoreError::host("flushing", error))?;
        rename(&self.directory, &self.temporary, name.as_str(), flags)
            .map_err(|errno| DatastoreError::named("naming the file", name.as_str(), errno))?;
        self.temporary.clear();
        nix::unistd::fsync(self.directory.as_fd())
            .map_err(|errno| DatastoreError::host("flushing the directory", errno))
    }
}

/// Renames a file within a directory.
fn rename(directory: &OwnedFd, from: &str, to: &str, flags: RenameFlags) -> nix::Result<()> {
    match nix::fcntl::renameat2(directory, from, directory, to, flags) {
        // NFS knows no flags. A link replaces nothing either.
        Err(Errno::EINVAL) if flags == RenameFlags::RENAME_NOREPLACE => {
            nix::unistd::linkat(directory, from, directory, to, AtFlags::empty())?;
            // The other name is a leftover then.
            let _ = nix::unistd::unlinkat(directory, from, UnlinkatFlags::NoRemoveDir);
            Ok(())
        }
        result => result,
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.temporary.is_empty() {
            return;
        }
        let flags = UnlinkatFlags::NoRemoveDir;
        if let Err(errno) = nix::unistd::unlinkat(&self.directory, self.temporary.as_str(), flags) {
            tracing::warn!(name = self.temporary, %errno, "cannot remove a temporary file");
        }
    }
}
