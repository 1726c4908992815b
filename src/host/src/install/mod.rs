//! Lodge on a disk of its own: how the disk is laid out, what makes it start, and putting it there.
//!
//! A disk has five partitions: room for GRUB's BIOS program, an EFI system partition, two images and the data. An image is the
//! filesystem of a Lodge ISO as it is, so that installing and updating are copying, and what is started is what was signed
//! and tested. The environment block on the EFI system partition says which image starts (`initramfs/grub/disk.cfg`).

mod boot_loader;
mod contents;
mod environment;
mod error;
mod home;
mod image;
mod layout;
mod medium;
mod signed;
mod slot;
mod target;
mod write;

pub use contents::Contents;
pub use environment::Environment;
pub use error::InstallError;
pub use home::Home;
pub use layout::{LEAST_SIZE, Part};
pub use medium::{Medium, find_medium};
pub use signed::{SignatureError, TRAILER, UpdateKey, verify};
pub use slot::{Slot, on_trial};
pub use target::{HostDisk, host_disks};
pub use write::{Installed, Job, Progress, Step, install, partition};
