//! What can be done with a CD-ROM drive from outside while its guest runs.

use std::sync::Arc;

use lodge_block::raw::RawDisk;

use super::Shared;
use crate::virtio::blk::Statistics;

/// A way to a drive for its monitor. Copies reach the same drive.
#[derive(Clone)]
pub struct CdromHandle {
    shared: Arc<Shared>,
}

/// What is with the drive at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tray {
    /// The drive holds a disc, in an open tray or a closed one.
    pub disc: bool,
    /// The guest ejected: the tray is open, and what lies in it is not used.
    pub ejected: bool,
    /// The guest wants the disc to stay.
    pub locked: bool,
}

/// A disc that cannot be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// Another one is in; eject it first.
    #[error("the drive holds a disc already")]
    Occupied,
}

/// A disc that cannot be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EjectError {
    /// The guest locked it in. It has been asked to let go.
    #[error("the guest has locked the disc in")]
    Locked,
}

impl CdromHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Counters, updated while the drive runs.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.shared.statistics)
    }

    /// Puts a disc in and closes the tray; one that lies in an open tray is replaced.
    ///
    /// # Errors
    /// [`InsertError`], and the disc is dropped.
    pub fn insert(&self, disc: RawDisk) -> Result<(), InsertError> {
        let disc = Arc::new(disc);
        let mut drive = self.shared.drive.lock().unwrap();
        let before = drive.disc().cloned();
        let inserted = drive.insert(disc);
        // The old one is closed without the lock, which may take the host a while.
        drop(drive);
        drop(before);
        inserted.then_some(()).ok_or(InsertError::Occupied)
    }

    /// Takes the disc out, if there is one. A read under way still ends with its data.
    ///
    /// # Errors
    /// [`EjectError`], unless it is to be done by `force`.
    pub fn eject(&self, force: bool) -> Result<(), EjectError> {
        let mut drive = self.shared.drive.lock().unwrap();
        let before = drive.disc().cloned();
        let ejected = drive.eject(force);
        drop(drive);
        drop(before);
        ejected.then_some(()).ok_or(EjectError::Locked)
    }

    /// What the guest did with the drive.
    pub fn tray(&self) -> Tray {
        let drive = self.shared.drive.lock().unwrap();
        Tray {
            disc: drive.disc().is_some(),
            ejected: drive.flags().open,
            locked: drive.flags().locked,
        }
    }
}
