//! An ATAPI CD-ROM drive (SFF-8020i, MMC-5) whose discs are raw images.
//!
//! Its thread reads by itself rather than through an engine: a drive may get its first disc when the
//! monitor is locked in and can make no more io_urings, and nobody expects a CD-ROM to be fast.

mod drive;
mod handle;
mod identify;
mod packet;
mod pages;
mod read;
mod sense;
mod toc;
mod worker;

use std::io;
use std::sync::{Arc, Mutex};

use lodge_block::raw::RawDisk;
use serde::{Deserialize, Serialize};

use self::drive::{DriveState, Flags};
pub use self::handle::{CdromHandle, EjectError, InsertError, Tray};
use self::worker::Worker;
use super::ata::error;
use super::fis::TaskFile;
use super::issue::PortLink;
use super::{Attached, ResetKind, Surroundings, Thread};
use crate::state::{DeviceState, RestoreError};
use crate::virtio::blk::Statistics;
use crate::virtio::queue_thread::QueueThread;

const KIND: &str = "atapi-cdrom";
const VERSION: u32 = 1;

/// A drive to be plugged into a port.
pub struct Cdrom {
    shared: Arc<Shared>,
    serial: String,
}

/// What the drive's thread, its port and its monitor share.
struct Shared {
    drive: Mutex<DriveState>,
    statistics: Arc<Statistics>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    /// Size of the disc in bytes.
    disc: Option<u64>,
    flags: Flags,
}

impl Cdrom {
    /// A drive with `disc` in it, which is never written to. The first 20 characters of the
    /// serial number count.
    pub fn new(disc: Option<RawDisk>, serial: &str) -> Self {
        Self {
            shared: Arc::new(Shared {
                drive: Mutex::new(DriveState::new(disc.map(Arc::new))),
                statistics: Arc::default(),
            }),
            serial: serial.to_owned(),
        }
    }

    /// What the monitor keeps when the drive itself is behind its controller.
    pub fn handle(&self) -> CdromHandle {
        CdromHandle::new(Arc::clone(&self.shared))
    }

    pub(super) fn attached(&self) -> Arc<dyn Attached> {
        Arc::clone(&self.shared) as _
    }

    pub(super) fn spawn(
        self,
        link: PortLink,
        surroundings: Surroundings,
    ) -> io::Result<Box<dyn Thread>> {
        let worker = Worker::new(self.shared, link, &self.serial, surroundings.complain);
        let thread = QueueThread::spawn(&surroundings.name, surroundings.prologue, worker)?;
        Ok(Box::new(thread))
    }
}

impl Attached for Shared {
    fn signature(&self) -> TaskFile {
        TaskFile {
            // A packet device is not ready for other commands (ACS-3, 9.2).
            status: 0,
            error: error::PASSED,
            lba: 0xeb_1401,
            device: 0,
            count: 1,
        }
    }

    fn reset(&self, kind: ResetKind) {
        self.drive.lock().unwrap().reset(kind);
    }

    fn save(&self) -> DeviceState {
        let drive = self.drive.lock().unwrap();
        let saved = Saved {
            disc: drive.disc().map(|disc| disc.size()),
            flags: drive.flags().clone(),
        };
        DeviceState::new(KIND, VERSION, &saved)
    }

    /// Another disc is none the guest could not be told of.
    fn check(&self, state: &DeviceState) -> Result<(), RestoreError> {
        state.decode::<Saved>(KIND, VERSION).map(drop)
    }

    fn restore(&self, state: &DeviceState) {
        if let Ok(saved) = state.decode::<Saved>(KIND, VERSION) {
            let mut drive = self.drive.lock().unwrap();
            let same = saved.disc == drive.disc().map(|disc| disc.size());
            drive.restore(saved.flags, same);
        }
    }
}
