//! Files that are in no filesystem.

use std::fs::File;
use std::io;

use lodge_block::raw::RawError;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::board::Host;

/// An empty file.
///
/// # Errors
/// When the process is out of descriptors.
pub fn empty_file() -> io::Result<File> {
    Ok(memfd_create(c"fuzzed", MFdFlags::MFD_CLOEXEC)?.into())
}

/// A disk of `size` bytes with something in its first sector.
///
/// # Panics
/// When the host has no room for it.
pub fn disk_file(size: u64) -> File {
    use std::os::unix::fs::FileExt as _;
    let file = empty_file().expect("descriptors");
    file.set_len(size).expect("room for a sparse file");
    file.write_all_at(&[0x5a; 512], 0)
        .expect("room for a sector");
    file
}

/// The file of a disk that grows.
pub struct Growing(File);

impl Growing {
    /// Goes on knowing `file` when the disk has it.
    ///
    /// # Panics
    /// When the process is out of descriptors.
    pub fn new(file: &File) -> Self {
        Self(file.try_clone().expect("descriptors"))
    }

    /// Makes it a sector longer for each byte of what an input says, and has the disk look at that.
    pub fn host(self, refresh: impl Fn() -> Result<u64, RawError> + 'static) -> Host {
        Box::new(move |_, bytes| {
            let more = 512 * bytes.len() as u64;
            let size = self.0.metadata().map_or(0, |metadata| metadata.len());
            if self.0.set_len(size + more).is_ok() {
                let _ = refresh();
            }
        })
    }
}
