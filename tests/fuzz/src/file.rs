//! Files that are in no filesystem.

use std::fs::File;
use std::io;

use nix::sys::memfd::{MFdFlags, memfd_create};

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
