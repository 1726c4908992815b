//! Random bytes by system call.
//!
//! The `getrandom` crate looks the C library's function up at run time, finds nothing in a static
//! program, and opens `/dev/urandom` instead, which a jailed monitor cannot.
#![allow(unsafe_code)]

use std::io;

/// Fills `buffer`, or as much of it as there is an answer for, and returns how much that is.
///
/// # Errors
/// Before the kernel's generator is seeded, early in the host's life.
pub fn random(buffer: &mut [u8]) -> io::Result<usize> {
    let flags = libc::GRND_NONBLOCK;
    // SAFETY: the buffer is ours to write for as many bytes as it is long.
    let count = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_the_buffer() {
        let mut buffer = [0; 256];
        // The kernel promises whole answers up to 256 bytes.
        assert_eq!(random(&mut buffer).unwrap(), 256);
        assert!(buffer.iter().any(|&byte| byte != buffer[0]));
        assert_eq!(random(&mut []).unwrap(), 0);
    }
}
