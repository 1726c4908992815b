//! Disk images: what they are, where they lie, and how a guest's requests reach them.
//!
//! Everything here is synchronous. The manager calls the [`datastore`] functions
//! from blocking threads; the monitor runs an [`engine::Engine`] on each disk queue's thread.

mod changes;
pub mod copy;
pub mod datastore;
pub mod engine;
pub mod foreign;
pub mod format;
mod name;
mod new_file;
pub mod raw;

pub use name::{FileName, NameError};
pub use new_file::NewFile;

/// Disks are addressed in sectors of 512 bytes, whatever their physical blocks are.
pub const SECTOR: u64 = 512;
