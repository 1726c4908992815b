//! The kernel's log ring, `/dev/kmsg`: reading records and adding our own.
//!
//! The ring outlives every process, so it is where PID 1 logs, and what the manager replays after a crash.
//! Format: `Documentation/ABI/testing/dev-kmsg` of the kernel.
#![allow(unsafe_code)]

mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use record::{KmsgRecord, RecordError};

const KMSG: &str = "/dev/kmsg";

/// Longer records than this do not exist (`PRINTK_MESSAGE_MAX` in the kernel, and some).
const RECORD_MAX: usize = 8192;

/// The longest text the kernel takes in one write is 1024 bytes with the prefix.
const WRITE_MAX: usize = 960;

/// The facility of our own records: daemon (RFC 5424 section 6.2.1).
pub const FACILITY_DAEMON: u8 = 3;

/// How urgent a record is (RFC 5424 section 6.2.1), most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Level {
    /// The system is unusable.
    Emergency = 0,
    /// Somebody must act at once.
    Alert = 1,
    /// A critical condition.
    Critical = 2,
    /// An error.
    Error = 3,
    /// A warning.
    Warning = 4,
    /// Normal and significant.
    Notice = 5,
    /// For information.
    Info = 6,
    /// For debugging.
    Debug = 7,
}

impl Level {
    /// From the low three bits of a syslog priority.
    pub fn from_priority(priority: u32) -> Self {
        match priority & 7 {
            0 => Self::Emergency,
            1 => Self::Alert,
            2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warning,
            5 => Self::Notice,
            6 => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// What a read brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KmsgItem {
    /// A record.
    Record(KmsgRecord),
    /// Records were overwritten before they were read; the sequence numbers tell how many.
    Lost,
}

/// Reads the ring from its oldest record on.
#[derive(Debug)]
pub struct KmsgReader {
    file: File,
}

impl KmsgReader {
    /// Opens the ring, without blocking. Needs root (`CAP_SYSLOG`).
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(KMSG)?;
        Ok(Self { file })
    }

    /// The next record, or `None` when all are read. Records that cannot be understood are skipped.
    pub fn read(&mut self) -> io::Result<Option<KmsgItem>> {
        let mut buffer = [0; RECORD_MAX];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(n) => {
                    if let Ok(record) = KmsgRecord::parse(&buffer[..n]) {
                        return Ok(Some(KmsgItem::Record(record)));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The ring went round past our place.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => return Ok(Some(KmsgItem::Lost)),
                Err(e) => return Err(e),
            }
        }
    }

    /// Turns this into a reader that waits. Must be called inside a tokio runtime.
    pub fn into_async(self) -> io::Result<AsyncKmsgReader> {
        // SAFETY: the reader owns its open file, never replaces it, and always names that file's descriptor.
        let inner = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        Ok(AsyncKmsgReader { inner: inner? })
    }
}

impl AsFd for KmsgReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for KmsgReader {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Reads the ring and waits for new records.
#[derive(Debug)]
pub struct AsyncKmsgReader {
    inner: AsyncFd<KmsgReader>,
}

impl AsyncKmsgReader {
    /// The next record, as soon as there is one. Safe to cancel.
    pub async fn next(&mut self) -> io::Result<KmsgItem> {
        loop {
            let mut guard = self.inner.readable_mut().await?;
            match guard.get_inner_mut().read()? {
                Some(item) => return Ok(item),
                None => guard.clear_ready(),
            }
        }
    }
}

/// Adds records to the ring.
#[derive(Debug)]
pub struct KmsgWriter {
    file: File,
    name: String,
}

impl KmsgWriter {
    /// Opens the ring for a program called `name`, which is put in front of every record.
    ///
    /// The kernel limits writers to ten records in five seconds unless `kernel.printk_devkmsg` is `on`; PID 1 sets it.
    pub fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(KMSG)?;
        Ok(Self {
            file,
            name: name.to_owned(),
        })
    }

    /// Adds a record per line of `message`; lines that the kernel would refuse as too long are split.
    pub fn write(&self, level: Level, message: &str) -> io::Result<()> {
        let priority = (FACILITY_DAEMON << 3) | level as u8;
        for line in message.lines() {
            for part in split(line, WRITE_MAX) {
                // One write is one record, so the parts must not be written one by one.
                let record = format!("<{priority}>{}: {part}\n", self.name);
                (&self.file).write_all(record.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Cuts `line` in parts of at most `limit` bytes, at character boundaries.
fn split(line: &str, limit: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut end = limit.min(line.len());
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        rest = (end < line.len()).then(|| &line[end..]);
        Some(&line[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_split_between_characters() {
        let parts: Vec<&str> = split("aäöü", 3).collect();
        assert_eq!(parts, ["aä", "ö", "ü"]);
        assert_eq!(split("", 3).collect::<Vec<_>>(), [""]);
        assert_eq!(split("abc", 3).collect::<Vec<_>>(), ["abc"]);
    }
}
