//! From memory to the disk: what is done when the manager of the memory has ended, and before that of the disk begins.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lodge_api::{ErrorCode, Problem};
use lodge_block::copy::CopyError;
use lodge_host::boot::{BootReport, DATA, DATA_FLAGS, DataStorage, WarningCode};
use lodge_host::disk::mount;
use lodge_host::install::Installed;
use nix::mount::{MntFlags, umount2};

use super::mirror::{mirror, size};
use crate::config::ManagerConfig;
use crate::core::internal;
use crate::operations::{OperationHandle, cancelled};

/// Folder of the data that changes for as long as the manager runs.
const STORE: &str = "store";

/// In the run directory: why the data did not move.
const FAILURE: &str = "install-failed";

/// A disk that has everything but what changes until the manager has ended.
pub(crate) struct Handover {
    installed: Installed,
    device: PathBuf,
    /// Where the new data filesystem is mounted.
    at: Mounted,
    data_dir: PathBuf,
    run_dir: PathBuf,
}

/// A place for one, until the manager ends.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Option<Handover>>);

impl Waiting {
    pub(super) fn set(&self, handover: Handover) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(handover);
    }

    pub(crate) fn take(&self) -> Option<Handover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A filesystem that is unmounted when it is not needed any more.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            tracing::warn!(%error, at = %self.0.display(), "a filesystem stays mounted");
        }
    }
}

impl Handover {
    pub(super) fn new(
        installed: Installed,
        device: PathBuf,
        at: PathBuf,
        config: &ManagerConfig,
    ) -> Self {
        Self {
            installed,
            device,
            at: Mounted(at),
            data_dir: config.data_dir.clone(),
            run_dir: config.run_dir.clone(),
        }
    }

    /// Where the data directory will be, on the filesystem that is mounted elsewhere yet.
    fn target(&self) -> PathBuf {
        let below = self.data_dir.strip_prefix(DATA);
        self.at.0.join(below.unwrap_or(&self.data_dir))
    }

    /// Copies everything that does not change any more.
    pub(super) fn copy_datastores(&self, handle: &OperationHandle) -> Result<(), Problem> {
        let total = size(&self.data_dir, Some(STORE))
            .map_err(|error| internal(format!("{}: {error}", self.data_dir.display())))?;
        let mut done = 0;
        let copied = mirror(&self.data_dir, &self.target(), Some(STORE), &mut |piece| {
            done += piece;
            handle.progress("copying the data", done, total);
            if handle.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        copied.map_err(|error| match error {
            CopyError::Cancelled => cancelled(),
            CopyError::NoSpace => Problem::new(
                ErrorCode::InsufficientResources,
                "the disk is too small for the data of this host",
            ),
            CopyError::Host { .. } => internal(error.to_string()),
        })
    }

    /// Moves the data, once nobody writes to them any more. What goes wrong is told by the next manager, which then goes on with the
    /// data in memory.
    pub(crate) fn complete(self) {
        let (run_dir, device) = (self.run_dir.clone(), self.device.clone());
        match self.move_data() {
            Ok(()) => tracing::info!("the data of this host are on {} now", device.display()),
            Err(problem) => {
                tracing::error!("the installation failed at its end: {problem}");
                let _ = fs::write(run_dir.join(FAILURE), problem);
            }
        }
    }

    fn move_data(self) -> Result<(), String> {
        let moving = mirror(&self.data_dir, &self.target(), None, &mut |_| {
            ControlFlow::Continue(())
        });
        moving.map_err(|error| error.to_string())?;
        self.installed
            .finish(Some(&self.at.0))
            .map_err(|error| error.to_string())?;
        drop(self.at);
        // From here on the disk is whole, whatever happens.
        put_in_place(&self.device).map_err(|error| format!("{DATA}: {error}"))?;
        amend_report(&self.run_dir, &self.device)
            .map_err(|error| format!("the report of the boot: {error}"))
    }
}

fn put_in_place(device: &Path) -> io::Result<()> {
    umount2(DATA, MntFlags::MNT_DETACH)?;
    let device = device.display().to_string();
    mount(&device, Path::new(DATA), "xfs", DATA_FLAGS, "")
}

/// The report of the boot says where the data are.
fn amend_report(run_dir: &Path, device: &Path) -> io::Result<()> {
    let path = run_dir.join("boot.json");
    let mut report = BootReport::read(&path)?;
    report.data = DataStorage::Disk {
        device: device.display().to_string(),
        filesystem: "xfs".to_owned(),
    };
    report
        .warnings
        .retain(|warning| warning.code != WarningCode::DataInRam);
    report.write(&path)
}

/// What an earlier manager has left to be said, once.
pub(crate) fn left_behind(run_dir: &Path) -> Option<String> {
    let path = run_dir.join(FAILURE);
    let problem = fs::read_to_string(&path).ok()?;
    let _ = fs::remove_file(&path);
    Some(format!(
        "Lodge could not be installed; the data of this host are in memory still: {problem}."
    ))
}
