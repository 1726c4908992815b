//! Whether acknowledged records may be missing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::open::sync_directory;

/// Name of the file that stands for it.
const NAME: &str = "losses";

/// A mark beside the store: made before damaged records are replaced or dropped, and there until somebody has looked
/// after what they stood for, however often the host is restarted meanwhile.
#[derive(Debug)]
pub(super) struct Losses {
    directory: PathBuf,
}

impl Losses {
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Whether records may be missing. A mark that cannot be looked for counts.
    pub(super) fn noted(&self) -> bool {
        self.path().try_exists().unwrap_or(true)
    }

    /// Makes the mark. Durable on return.
    pub(super) fn note(&self) -> io::Result<()> {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path())?
            .sync_all()?;
        sync_directory(&self.directory)
    }

    /// Takes the mark away.
    pub(super) fn settle(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_directory(&self.directory),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }
}
