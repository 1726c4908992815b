//! An ATA disk on a raw image (ACS-3), through the same engine as the virtio block device.

mod decode;
mod ending;
mod handle;
mod identify;
mod log;
mod session;
mod steps;

use std::io;
use std::sync::{Arc, Mutex};

use lodge_block::engine::Engine;
use lodge_block::raw::RawDisk;
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

pub use self::handle::DiskHandle;
use self::log::Failure;
use self::session::Session;
use super::ata::{error, status};
use super::fis::TaskFile;
use super::issue::PortLink;
use super::{Attached, ResetKind, Surroundings, Thread};
use crate::on_error::ErrorPolicy;
use crate::state::{DeviceState, RestoreError};
use crate::throttle::{Gate, Throttle};
use crate::virtio::blk::Statistics;
use crate::virtio::queue_thread::{QueueThread, Serve};

const KIND: &str = "ata-disk";
const VERSION: u32 = 1;

/// Commands one drive has with the host at a time: every slot.
const DEPTH: u16 = 32;

/// How a disk shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// Refuse writes even if the file allows them. The guest is not told: ATA has no words for it.
    pub read_only: bool,
    /// What the guest reads as the disk's serial number; the first 20 characters count.
    pub serial: String,
}

/// A disk to be plugged into a port.
pub struct Disk {
    shared: Arc<Shared>,
}

/// What the disk's thread, its port and its monitor share.
struct Shared {
    image: Arc<RawDisk>,
    options: DiskOptions,
    statistics: Arc<Statistics>,
    throttle: Arc<Throttle>,
    errors: Arc<ErrorPolicy>,
    modes: Mutex<Modes>,
}

/// What a driver can set, and what the disk remembers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Modes {
    write_cache: bool,
    /// Blocks of READ and WRITE MULTIPLE; 0 before they are set.
    multiple: u8,
    /// The queued command that failed last.
    failure: Option<Failure>,
}

impl Modes {
    fn initial() -> Self {
        Self {
            write_cache: true,
            multiple: 0,
            failure: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    size: u64,
    logical_block: u32,
    read_only: bool,
    modes: Modes,
}

impl Disk {
    /// A disk on `image`.
    pub fn new(image: RawDisk, options: DiskOptions) -> Self {
        let read_only = options.read_only || image.read_only();
        Self {
            shared: Arc::new(Shared {
                image: Arc::new(image),
                options: DiskOptions {
                    read_only,
                    ..options
                },
                statistics: Arc::default(),
                throttle: Arc::default(),
                errors: Arc::default(),
                modes: Mutex::new(Modes::initial()),
            }),
        }
    }

    /// What the monitor keeps when the disk itself is behind its controller.
    pub fn handle(&self) -> DiskHandle {
        DiskHandle::new(Arc::clone(&self.shared))
    }

    pub(super) fn attached(&self) -> Arc<dyn Attached> {
        Arc::clone(&self.shared) as _
    }

    pub(super) fn spawn(
        self,
        link: PortLink,
        surroundings: Surroundings,
    ) -> io::Result<Box<dyn Thread>> {
        let worker = Worker {
            engine: Engine::new(Arc::clone(&self.shared.image), DEPTH)?,
            gate: Gate::new(&self.shared.throttle, &self.shared.statistics)?,
            shared: self.shared,
            link,
            complain: surroundings.complain,
        };
        let thread = QueueThread::spawn(&surroundings.name, surroundings.prologue, worker)?;
        Ok(Box::new(thread))
    }
}

struct Worker {
    engine: Engine,
    shared: Arc<Shared>,
    gate: Gate,
    link: PortLink,
    complain: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Serve for Worker {
    type Start = ();
    type End = ();

    fn serve(&mut self, (): (), stop: &EventFd) {
        Session::new(self).run(stop);
    }
}

impl Shared {
    /// Size of a block in bytes, as the driver addresses them.
    fn block(&self) -> u64 {
        self.image.logical_block().into()
    }

    fn blocks(&self) -> u64 {
        self.image.size() / self.block()
    }
}

impl Attached for Shared {
    fn signature(&self) -> TaskFile {
        TaskFile {
            status: status::READY,
            error: error::PASSED,
            lba: 1,
            device: 0,
            count: 1,
        }
    }

    fn reset(&self, kind: ResetKind) {
        let mut modes = self.modes.lock().unwrap();
        match kind {
            ResetKind::Hard => *modes = Modes::initial(),
            ResetKind::Soft => modes.failure = None,
        }
    }

    fn save(&self) -> DeviceState {
        let saved = Saved {
            size: self.image.size(),
            logical_block: self.image.logical_block(),
            read_only: self.options.read_only,
            modes: self.modes.lock().unwrap().clone(),
        };
        DeviceState::new(KIND, VERSION, &saved)
    }

    /// A disk behind a restored guest may have grown but not shrunk.
    fn check(&self, state: &DeviceState) -> Result<(), RestoreError> {
        let saved: Saved = state.decode(KIND, VERSION)?;
        let (size, block) = (self.image.size(), self.image.logical_block());
        let problem = if size < saved.size {
            format!("the disk had {} bytes, this one has {size}", saved.size)
        } else if block != saved.logical_block {
            format!(
                "the disk had blocks of {} bytes, this one has {block}",
                saved.logical_block
            )
        } else if self.options.read_only != saved.read_only {
            format!("the disk had read_only {}", saved.read_only)
        } else {
            return Ok(());
        };
        Err(RestoreError::Invalid {
            kind: KIND,
            problem,
        })
    }

    fn restore(&self, state: &DeviceState) {
        if let Ok(saved) = state.decode::<Saved>(KIND, VERSION) {
            *self.modes.lock().unwrap() = saved.modes;
        }
    }
}
