//! The random seed: entropy carried from one boot to the next on the data volume.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use lodge_host::private_file::{private_dir, sync_parent, write_private};

/// Where it lies.
const SEED: &str = "/data/lodge/state/random-seed";
/// Bytes of a seed: what the kernel's generator holds.
const LEN: usize = 32;

/// `struct rand_pool_info` of `linux/random.h` with room for one seed.
#[repr(C)]
struct PoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; LEN],
}

nix::ioctl_write_ptr_bad!(
    /// Adds entropy and credits it.
    rnd_add_entropy,
    nix::request_code_write!(b'R', 0x03, size_of::<libc::c_int>() * 2),
    PoolInfo
);

/// Gives the kernel the seed of the last shutdown, and makes a new one at once, so that none is ever used twice.
pub(crate) fn load() {
    match load_from(Path::new(SEED)) {
        Ok(true) => tracing::debug!("random seed loaded"),
        Ok(false) => {}
        Err(error) => tracing::warn!("random seed: {error}"),
    }
    save();
}

/// Writes a new seed for the next boot.
pub(crate) fn save() {
    if let Err(error) = save_to(Path::new(SEED)) {
        tracing::debug!("random seed not saved: {error}");
    }
}

fn load_from(path: &Path) -> io::Result<bool> {
    let mut buf = [0; LEN];
    match File::open(path).and_then(|mut file| file.read_exact(&mut buf)) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ) =>
        {
            return Ok(false);
        }
        other => other?,
    }
    // Credited only when it is certain that no other boot will use it again.
    let gone = fs::remove_file(path)
        .and_then(|()| sync_parent(path))
        .is_ok();
    let info = PoolInfo {
        entropy_count: if gone { 8 * LEN as libc::c_int } else { 0 },
        buf_size: LEN as libc::c_int,
        buf,
    };
    let device = OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: `info` has the layout the kernel reads: two integers, then as many bytes as the second says.
    unsafe { rnd_add_entropy(device.as_raw_fd(), &raw const info) }?;
    Ok(true)
}

fn save_to(path: &Path) -> io::Result<()> {
    let mut buf = [0; LEN];
    File::open("/dev/urandom")?.read_exact(&mut buf)?;
    if let Some(parent) = path.parent() {
        private_dir(parent)?;
    }
    write_private(path, &buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_seed_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/seed");
        save_to(&path).unwrap();
        let first = fs::read(&path).unwrap();
        save_to(&path).unwrap();
        let second = fs::read(&path).unwrap();
        assert_eq!((first.len(), second.len()), (LEN, LEN));
        assert_ne!(first, second);
        assert!(!load_from(&dir.path().join("missing")).unwrap());
        fs::write(&path, "short").unwrap();
        assert!(!load_from(&path).unwrap());
    }
}
