//! Only the descriptors that were given.

use std::io;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stdin, dup2_stdout};

/// Input is nothing, output goes nowhere; errors stay the log.
///
/// # Errors
/// When `/dev/null` cannot be opened.
pub fn silence_standard_streams() -> io::Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(())
}

/// Closes every descriptor above the standard ones that is not in `keep`.
///
/// # Errors
/// From `close_range(2)`.
pub fn close_all_but(keep: &[i32]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

#[allow(unsafe_code)]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: nothing in this process uses a descriptor that is not in the
    // list of those to keep: it has just been started.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
