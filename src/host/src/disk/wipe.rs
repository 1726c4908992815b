//! Making a disk blank: so that nothing old is found on it, now or by whoever looks at it later.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::BlockDevice;

/// Bytes of zeroes that what is found on disks does not outlive.
const WIPED: u64 = 1 << 20;

nix::ioctl_none!(reread_table, 0x12, 95);

/// A disk that nobody else opens so, and on which nothing is mounted.
#[derive(Debug)]
pub struct ExclusiveDisk {
    /// The open disk.
    pub file: File,
    size: u64,
}

impl ExclusiveDisk {
    /// Opens a whole disk.
    ///
    /// # Errors
    /// `EBUSY` where something is mounted on it, or another program has it.
    pub fn open(device: &BlockDevice) -> io::Result<Self> {
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL | libc::O_CLOEXEC);
        Ok(Self {
            file: options.open(device.path())?,
            size: device.size,
        })
    }

    /// Writes zeroes over what says what is on the disk: at its end, at its beginning, and at the offsets `also`, in bytes. Durable on return.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn wipe(&self, also: impl IntoIterator<Item = u64>) -> io::Result<()> {
        let zeroes = vec![0; WIPED as usize];
        // The end first: a partition table there is used when the one at the beginning is gone.
        let end = self.size.saturating_sub(WIPED);
        for at in [end, 0].into_iter().chain(also) {
            let length = WIPED.min(self.size.saturating_sub(at));
            self.file.write_all_at(&zeroes[..length as usize], at)?;
        }
        self.file.sync_all()
    }

    /// Has the kernel look for partitions anew.
    ///
    /// # Errors
    /// `EBUSY` where a partition is in use.
    pub fn reread_partitions(&self) -> io::Result<()> {
        // SAFETY: the call takes a descriptor and nothing else.
        unsafe { reread_table(self.file.as_raw_fd()) }
            .map(drop)
            .map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_wiped_whatever_the_size() {
        for size in [4 << 20, 1 << 19, 512] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let content = vec![0xff; size as usize];
            file.as_file().write_all_at(&content, 0).unwrap();
            let disk = ExclusiveDisk {
                file: file.reopen().unwrap(),
                size,
            };
            disk.wipe([size / 2]).unwrap();
            let wiped = std::fs::read(file.path()).unwrap();
            assert_eq!(wiped.len() as u64, size, "it does not grow");
            assert_eq!((wiped[0], wiped[wiped.len() - 1]), (0, 0));
            assert_eq!(wiped[wiped.len() / 2], 0);
        }
    }
}
