//! An NVM Express controller (NVM Express 1.4) with one disk as its namespace, for guests that have
//! no virtio drivers: every system of the last ten years has one for this, and so have SeaBIOS and OVMF.
//!
//! vCPUs only touch registers. The admin queue has a thread that does what it says and starts and
//! stops the others, one for each submission queue, which move data between image and guest memory through
//! the same engine as the virtio block device. Between enabling and reset, everything a
//! controller has for its driver is a `Session`: the admin thread takes it when it starts and gives it back when
//! it stops, and a pause, a saved state and a reset are nothing but that.
//!
//! What a driver is told, and not more: one namespace with one format, MSI-X only, pages of 4 KiB, no metadata, no
//! scatter-gather lists, no controller memory. Reads that ask to pass by the cache (FUA) are plain reads. Commands are
//! not aborted; the answer to Abort says so.

mod admin;
mod command;
mod completion;
mod doorbells;
mod function;
mod handle;
mod io;
mod kernel_doorbells;
mod prp;
mod registers;
mod session;
mod shadow;
mod shared;
mod state;
mod submission;
#[cfg(test)]
mod tests;

pub use self::function::{BAR_BYTES, Nvme, NvmeOptions};
pub use self::handle::NvmeHandle;

/// Least pairs of queues for data: OVMF wants two.
pub const MIN_QUEUES: u16 = 2;

/// Most pairs of queues for data.
pub const MAX_QUEUES: u16 = 4;

/// Most entries of a queue for data.
const MOST_ENTRIES: u32 = 1024;

/// The memory page of the controller (CC.MPS), in bytes.
const PAGE: u64 = 4096;
const PAGE_BYTES: usize = PAGE as usize;

/// Largest transfer as a power of two of pages (MDTS): 2 MiB.
const TRANSFER_EXPONENT: u8 = 9;
const MOST_BYTES: u64 = PAGE << TRANSFER_EXPONENT;

/// The only namespace.
const NAMESPACE: u32 = 1;
const ALL_NAMESPACES: u32 = u32::MAX;

/// Offset of the doorbells in the BAR, and bytes of a tail and a head.
const DOORBELLS: u64 = 0x1000;
const DOORBELL_PAIR_BYTES: u64 = 8;

/// The function's identity: that of QEMU's controller, for which drivers know that the identifiers of its
/// namespaces may be anything.
const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0010;
const SUBSYSTEM_VENDOR: u16 = 0x1af4;
const SUBSYSTEM: u16 = 0x1100;

/// How a disk shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmeDiskOptions {
    /// Refuse writes even if the file allows them.
    pub read_only: bool,
    /// What the guest reads as the disk's serial number; the first 20 characters count. No two disks of a guest may
    /// have the same: it is what systems tell them apart by.
    pub serial: String,
    /// Pairs of queues offered, [`MIN_QUEUES`] to [`MAX_QUEUES`] (others are brought into the range);
    /// more than the guest's vCPUs are of no use.
    pub queues: u16,
}
