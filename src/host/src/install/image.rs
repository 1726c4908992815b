//! Writing an image to its partition.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::InstallError;

/// How much is copied at a time. The filesystem says what it is in the first of these (ECMA-119, 6.2.1).
const PIECE: u64 = 1 << 20;

nix::ioctl_none!(flush_buffers, 0x12, 97);

/// Copies the first `length` bytes of `source`, called `from`, to the partition `to`. Its first part is wiped at the beginning and written
/// at the end: what is there meanwhile, or after a power cut, is no image. `progress` hears of bytes done.
pub(super) fn write_image(
    source: &File,
    from: &Path,
    length: u64,
    to: &Path,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), InstallError> {
    let target = File::options()
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(to)
        .map_err(InstallError::at(to))?;
    wipe(&target).map_err(InstallError::at(to))?;
    let mut buffer = vec![0; PIECE as usize];
    let mut done = 0;
    let rest = (1..length.div_ceil(PIECE)).map(|piece| piece * PIECE);
    for (at, is_last) in rest.map(|at| (at, false)).chain([(0, true)]) {
        if is_last {
            // All else is on the disk before the beginning is.
            target.sync_all().map_err(InstallError::at(to))?;
        }
        let piece = &mut buffer[..(length - at).min(PIECE) as usize];
        source
            .read_exact_at(piece, at)
            .map_err(InstallError::at(from))?;
        target
            .write_all_at(piece, at)
            .map_err(InstallError::at(to))?;
        done += piece.len() as u64;
        if progress(done).is_break() {
            return Err(InstallError::Cancelled);
        }
    }
    target.sync_all().map_err(InstallError::at(to))?;
    // What is read next comes from the disk.
    // SAFETY: the call takes a descriptor and nothing else.
    unsafe { flush_buffers(target.as_raw_fd()) }
        .map_err(|errno| InstallError::at(to)(errno.into()))?;
    Ok(())
}

fn wipe(target: &File) -> io::Result<()> {
    target.write_all_at(&vec![0; PIECE as usize], 0)?;
    target.sync_all()
}
