//! Raw disks, written as images of other formats, front to back: what is made is sent while it is made.
//!
//! Only what is allocated is read. The disk must not change meanwhile.

mod qcow2;
mod vmdk;

use std::fs::File;

use crate::copy::{CopyError, next_data, read_padded};

/// Bytes that a stream hands out at a time, more or less.
const CHUNK: usize = 256 << 10;

/// What a disk can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// As it is, holes included.
    Raw,
    /// qcow2 version 3, not compressed: its length is known before it is read.
    Qcow2,
    /// VMDK streamOptimized, the one of OVAs, compressed.
    Vmdk,
}

/// An image in the making.
pub trait Export: Send {
    /// Its length in bytes, where that is known before its end.
    fn length(&self) -> Option<u64>;

    /// How much of the disk is done, in bytes.
    fn position(&self) -> u64;

    /// Appends the next piece to `buffer`; nothing at the end.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError>;
}

/// Begins to write `disk` as an image. `name` is what the image calls itself, where the format has a place for that.
///
/// # Errors
/// When the disk's map cannot be read.
pub fn export(disk: File, format: ExportFormat, name: &str) -> Result<Box<dyn Export>, CopyError> {
    let disk = Disk::new(disk)?;
    Ok(match format {
        ExportFormat::Raw => Box::new(Raw { disk, position: 0 }),
        ExportFormat::Qcow2 => Box::new(qcow2::Qcow2::new(disk)?),
        ExportFormat::Vmdk => Box::new(vmdk::Vmdk::new(disk, name)),
    })
}

/// The image that another one is to be read upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its file's name, at most [`MAX_BACKING`] bytes.
    pub name: String,
    /// It is a qcow2, and raw otherwise.
    pub qcow2: bool,
}

/// Longest name of a backing file, in bytes (QEMU, docs/interop/qcow2.txt).
pub const MAX_BACKING: usize = 1023;

/// Begins to write what of `disk` is another than in `base` as a qcow2 that is to be read upon an image of `base`, which it names
/// if `backing` is given.
///
/// # Errors
/// When a map of what changed cannot be made.
pub fn export_changes(
    disk: File,
    base: &File,
    backing: Option<Backing>,
) -> Result<Box<dyn Export>, CopyError> {
    let disk = Disk::new(disk)?;
    Ok(Box::new(qcow2::Qcow2::changes(disk, base, backing)?))
}

/// The disk that is read.
struct Disk {
    file: File,
    size: u64,
}

impl Disk {
    fn new(file: File) -> Result<Self, CopyError> {
        let metadata = file
            .metadata()
            .map_err(|error| CopyError::host("reading the disk's status", error))?;
        Ok(Self {
            size: metadata.len(),
            file,
        })
    }

    /// The next range with data at or after `position`.
    fn next_data(&self, position: u64) -> Result<Option<(u64, u64)>, CopyError> {
        next_data(&self.file, position, self.size)
    }

    /// Fills `buffer`, beyond the end with zeroes.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), CopyError> {
        read_padded(&self.file, at, buffer)
    }
}

struct Raw {
    disk: Disk,
    position: u64,
}

impl Export for Raw {
    fn length(&self) -> Option<u64> {
        Some(self.disk.size)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        let left = self.disk.size - self.position;
        let count = left.min(CHUNK as u64) as usize;
        let start = buffer.len();
        buffer.resize(start + count, 0);
        let end = self.position + count as u64;
        let data = self.disk.next_data(self.position)?;
        // Holes are not read.
        if data.is_some_and(|(from, _)| from < end) {
            self.disk.read(self.position, &mut buffer[start..])?;
        }
        self.position = end;
        Ok(())
    }
}
