//! An AHCI host bus adapter (AHCI 1.3.1) as the ICH9 has it at 00:1f.2, with disks and CD-ROM
//! drives for guests that have no virtio drivers, or not yet.
//!
//! vCPUs only touch registers. Each drive has a thread, started with the controller, which
//! fetches commands, moves data between image and guest memory, and completes them: `hba.rs`
//! is where both meet.
//!
//! Simplifications no driver sees: the frames of a PIO transfer in several blocks are written once, for the
//! last block; the frame by which a device accepts a queued command is not written; transfers
//! beyond one command's data table are refused.

mod ata;
mod cdrom;
mod command;
mod disk;
mod fis;
mod function;
mod hba;
mod interrupts;
mod issue;
mod port;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

pub use self::cdrom::{Cdrom, CdromHandle, EjectError, InsertError, Tray};
pub use self::disk::{Disk, DiskHandle, DiskOptions};
use self::fis::TaskFile;
pub use self::function::{Ahci, AhciOptions};
use self::issue::PortLink;
use crate::state::{DeviceState, RestoreError};
use crate::virtio::Prologue;
use crate::virtio::queue_thread::{QueueThread, Serve};

/// Ports of the controller.
pub const PORTS: usize = 6;

/// What is plugged into a port.
pub enum Drive {
    /// A disk.
    Disk(Disk),
    /// A CD-ROM drive.
    Cdrom(Cdrom),
}

/// How a device is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResetKind {
    /// Power-on, or COMRESET.
    Hard,
    /// By the device control register.
    Soft,
}

/// What a port knows of its device. Called with the registers' lock held: it takes no
/// other lock than the device's own, and does not wait.
trait Attached: Send + Sync {
    /// The registers after a reset.
    fn signature(&self) -> TaskFile;

    fn reset(&self, kind: ResetKind);

    fn save(&self) -> DeviceState;

    /// Whether [`Attached::restore`] would take this.
    fn check(&self, state: &DeviceState) -> Result<(), RestoreError>;

    /// Takes what [`Attached::check`] found right.
    fn restore(&self, state: &DeviceState);
}

/// A drive's thread.
trait Thread: Send {
    /// Serves the port until [`Thread::stop`].
    fn start(&mut self);

    /// Comes to rest: nothing is under way afterwards.
    fn stop(&mut self);
}

impl<S: Serve<Start = ()>> Thread for QueueThread<S> {
    fn start(&mut self) {
        // A device may be resumed that was never paused.
        Self::stop(self);
        Self::start(self, ());
    }

    fn stop(&mut self) {
        Self::stop(self);
    }
}

impl Drive {
    fn attached(&self) -> Arc<dyn Attached> {
        match self {
            Self::Disk(disk) => disk.attached(),
            Self::Cdrom(cdrom) => cdrom.attached(),
        }
    }

    fn spawn(self, link: PortLink, surroundings: Surroundings) -> io::Result<Box<dyn Thread>> {
        match self {
            Self::Disk(disk) => disk.spawn(link, surroundings),
            Self::Cdrom(cdrom) => cdrom.spawn(link, surroundings),
        }
    }
}

/// What a drive's thread needs of its controller.
struct Surroundings {
    /// Of the thread.
    name: String,
    prologue: Prologue,
    /// Tells the host's people of a failure of the host.
    complain: Arc<dyn Fn(&str) + Send + Sync>,
}
