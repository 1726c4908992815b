//! Virtio 1.2 over PCI (section 4.1), modern interface only.
//!
//! One 64-bit memory BAR holds everything: common, interrupt status, device and
//! notification registers, then the MSI-X table and pending bits, each in its own page.
//! There is no legacy interface, no I/O BAR, no wired interrupt and no per-queue reset.

mod capability;
mod common;
mod doorbell;
mod events;
mod function;
mod queue;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod transport;

pub use transport::{VirtioPci, VirtioPciOptions};

/// Size of the BAR in bytes.
pub const BAR_BYTES: u64 = 0x8000;
/// Which BAR.
const BAR: u8 = 0;

/// A page of the BAR.
const PAGE: u64 = 0x1000;
const COMMON: u64 = 0x0000;
const COMMON_BYTES: u64 = 0x38;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Distance between the doorbells of two queues.
const NOTIFY_STRIDE: u64 = 4;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x5000;

/// Most queues: one page of doorbells, one page of MSI-X entries, less one for configuration changes.
const MAX_QUEUES: usize = (PAGE / crate::pci::TABLE_ENTRY_BYTES) as usize - 1;
/// A vector register that names no vector (virtio 1.2, 4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
