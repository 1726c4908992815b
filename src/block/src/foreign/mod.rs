//! Foreign disk images: qcow2, VMDK, VHD and VHDX are read, qcow2 and VMDK written.
//!
//! A reader knows only the tables of its format and says in which extents the disk's data lie in the file; what is in none of
//! them reads as zeroes. [`convert`] carries the extents over to a raw file. A running guest never sees anything but that.
//!
//! Images come from strangers. Readers hold a bounded part of the tables in memory, let no byte of the file belong to
//! two things, and end in as many steps as the file has entries, whatever is in it. References to other files are refused.

mod convert;
mod error;
mod export;
mod qcow2;
mod source;
mod unpack;
mod vhd;
mod vhdx;
mod vmdk;

pub use convert::{ConvertError, Converted, apply, convert};
pub use error::ImageError;
pub use export::{Backing, Export, ExportFormat, MAX_BACKING, export, export_changes};
pub use source::Part;
pub use unpack::Packing;

use crate::SECTOR;
use crate::format::Format;

/// Largest disk that is taken over, in bytes: as much as a disk here can have.
pub const MAX_SIZE: u64 = 64 << 40;

/// Where some of a disk's data are. Places in the file count from where the image begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Place on the disk in bytes, a multiple of 512.
    pub start: u64,
    /// Length in bytes, a multiple of 512, not zero; the end is on the disk.
    pub length: u64,
    /// Place in the file.
    pub content: Content,
}

/// How an extent lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// As it is. What would lie beyond the end of the file is zeroes.
    Plain {
        /// Place in the file in bytes.
        at: u64,
    },
    /// Nowhere: zeroes, whatever is there in the image below. Only images of changes have that.
    Zeroes,
    /// Compressed.
    Packed {
        /// Place in the file in bytes.
        at: u64,
        /// Length there: at least what the compressed data need; within the file.
        length: u32,
        /// How.
        packing: Packing,
        /// Most bytes that come out; the extent is the first of them.
        unpacked: u32,
    },
}

/// A reader of one format.
pub trait Image: Send {
    /// What it is.
    fn format(&self) -> Format;

    /// Length of the disk in bytes: a multiple of 512, not zero, at most [`MAX_SIZE`].
    fn size(&self) -> u64;

    /// What the image says of itself, for people: `qcow2 v3, zstd`.
    fn describe(&self) -> String;

    /// The next extent, in the order of the disk; `None` when there are no more.
    ///
    /// # Errors
    /// [`ImageError`]; the image cannot be read on then.
    fn next_extent(&mut self) -> Result<Option<Extent>, ImageError>;
}

/// Whether [`open`] has a reader for the format.
pub fn is_readable(format: Format) -> bool {
    matches!(
        format,
        Format::Qcow2 | Format::Vmdk | Format::Vhd | Format::Vhdx
    )
}

/// A reader for an image of a format that [`is_readable`].
///
/// # Errors
/// [`ImageError`].
pub fn open(part: Part<'_>, format: Format) -> Result<Box<dyn Image>, ImageError> {
    Ok(match format {
        Format::Qcow2 => Box::new(qcow2::Qcow2::open(part)?),
        Format::Vmdk => Box::new(vmdk::Vmdk::open(part)?),
        Format::Vhd => Box::new(vhd::Vhd::open(part)?),
        Format::Vhdx => Box::new(vhdx::Vhdx::open(part)?),
        Format::VmdkDescriptor => return Err(vmdk::refuse_descriptor(part)?),
        other => {
            return Err(ImageError::refused(
                other,
                "which is not read here",
                other.remedy(),
            ));
        }
    })
}

/// A reader for a qcow2 of what changed on a disk ([`export_changes`]). That it names a file to be read upon is all right: what it does
/// not have is there, and is in none of its extents.
///
/// # Errors
/// [`ImageError`].
pub fn open_changes(part: Part<'_>) -> Result<Box<dyn Image>, ImageError> {
    Ok(Box::new(qcow2::Qcow2::open_changes(part)?))
}

/// Fails for a size that no disk can have.
fn check_size(format: Format, size: u64) -> Result<(), ImageError> {
    if size == 0 || !size.is_multiple_of(SECTOR) {
        let problem = format!("its disk would have {size} bytes, which is no multiple of 512");
        return Err(ImageError::damaged(format, problem));
    }
    if size > MAX_SIZE {
        let problem = format!("with a disk of {size} bytes, more than the 64 TiB of the largest");
        let remedy = "make the disk smaller where it comes from";
        return Err(ImageError::refused(format, problem, remedy));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
