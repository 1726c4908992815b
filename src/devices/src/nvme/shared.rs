//! What vCPUs and all threads of a controller share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use lodge_block::raw::RawDisk;

use super::doorbells::Doorbells;
use super::kernel_doorbells::KernelDoorbells;
use super::{NvmeDiskOptions, registers::status};
use crate::GuestMemory;
use crate::on_error::ErrorPolicy;
use crate::pci::Msix;
use crate::throttle::Throttle;
use crate::virtio::Complain;
use crate::virtio::blk::Statistics;

/// Something that happens outside of any command (NVM Express 1.4, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A doorbell of no queue was written.
    DoorbellRegister,
    /// A doorbell was written with a value that cannot be.
    DoorbellValue,
    /// The namespace has another size.
    Namespace,
}

impl Event {
    pub const ALL: [Self; 3] = [Self::DoorbellRegister, Self::DoorbellValue, Self::Namespace];

    pub fn bit(self) -> u32 {
        match self {
            Self::DoorbellRegister => 1 << 0,
            Self::DoorbellValue => 1 << 1,
            Self::Namespace => 1 << 2,
        }
    }
}

/// What is shared. No lock is taken here.
pub(super) struct Shared {
    pub name: String,
    pub memory: GuestMemory,
    pub image: Arc<RawDisk>,
    pub options: NvmeDiskOptions,
    pub statistics: Arc<Statistics>,
    pub throttle: Arc<Throttle>,
    pub errors: Arc<ErrorPolicy>,
    pub doorbells: Doorbells,
    pub kernel_doorbells: KernelDoorbells,
    pub msix: Msix,
    /// The driver wants writes to be kept in a cache until it flushes.
    pub write_cache: AtomicBool,
    /// CSTS.
    pub status: AtomicU32,
    /// The driver announced that power will go.
    pub shutdown: AtomicBool,
    /// Events that happened and were not told.
    pub events: AtomicU32,
    pub complain: Complain,
}

impl Shared {
    /// Size of a block in bytes.
    pub fn block(&self) -> u64 {
        self.image.logical_block().into()
    }

    pub fn blocks(&self) -> u64 {
        self.image.size() / self.block()
    }

    /// Notes an event for the driver.
    pub fn report(&self, event: Event) {
        let before = self.events.fetch_or(event.bit(), Ordering::SeqCst);
        if before & event.bit() == 0 {
            self.doorbells.ring(0);
        }
    }

    /// The controller cannot go on until it is reset (CSTS.CFS).
    pub fn fail(&self, why: &str) {
        let before = self.status.fetch_or(status::FATAL, Ordering::SeqCst);
        if before & status::FATAL == 0 {
            (self.complain)(&self.name, &format!("needs a reset by its driver: {why}"));
        }
    }

    pub fn failed(&self) -> bool {
        self.status.load(Ordering::SeqCst) & status::FATAL != 0
    }
}
