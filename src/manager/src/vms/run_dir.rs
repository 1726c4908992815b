//! A running guest's directory, `RUN/vms/ID`: what a restarted manager needs to find the guest.
//!
//! | file | what |
//! | --- | --- |
//! | `control.sock` | the monitor listens here |
//! | `exit.json` | its last words; empty while it runs |
//! | `launch.json` | what it was started with ([`LaunchNote`]) |
//! | `vmm.log` | its log |

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lodge_api::vm::VmSpec;
use lodge_vmm_proto::ExitRecord;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plug::Device;

/// Largest log kept of a monitor, in bytes: the run directory is in memory.
const LOG_LIMIT: u64 = 1 << 20;

/// Bytes from the end of the log in which its last line is looked for.
const TAIL: u64 = 2048;

/// Longest exit record or launch note read back, in bytes.
const FILE_LIMIT: u64 = 256 << 10;

/// What a guest was started with, and has now: what was plugged in or out meanwhile counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LaunchNote {
    pub(crate) spec: VmSpec,
    pub(crate) disks: Vec<Uuid>,
    /// Index of its user id, from 0.
    pub(crate) uid_index: Option<u32>,
    /// Its address for sockets to the host.
    #[serde(default)]
    pub(crate) vsock_cid: Option<u32>,
    /// What is being plugged in, and not recorded in the configuration yet. A manager that finds it takes it out again.
    #[serde(default)]
    pub(crate) arriving: Option<Device>,
    pub(crate) started_at: Timestamp,
}

/// The directory of one guest.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    path: PathBuf,
}

/// All guests that have a directory.
pub(crate) fn list(run_dir: &Path) -> io::Result<Vec<(Uuid, RunDir)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(run_dir.join("vms"))? {
        let entry = entry?;
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(id) = id {
            found.push((id, RunDir { path: entry.path() }));
        }
    }
    Ok(found)
}

impl RunDir {
    pub(crate) fn new(run_dir: &Path, id: Uuid) -> Self {
        Self {
            path: run_dir.join("vms").join(id.to_string()),
        }
    }

    /// Makes it anew, empty.
    pub(crate) fn create(&self) -> io::Result<()> {
        self.remove()?;
        DirBuilder::new().mode(0o700).create(&self.path)
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// The listening socket that is handed to the monitor.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        bind(listener.as_raw_fd(), &UnixAddr::new(&self.socket())?)?;
        listen(&listener, Backlog::new(4)?)?;
        Ok(listener)
    }

    pub(crate) fn create_exit_file(&self) -> io::Result<File> {
        private().create(true).truncate(true).open(self.exit_path())
    }

    /// For appending, so that it can be cut while the monitor writes.
    pub(crate) fn create_log(&self) -> io::Result<File> {
        private().create(true).append(true).open(self.log_path())
    }

    pub(crate) fn write_note(&self, note: &LaunchNote) -> io::Result<()> {
        let path = self.path.join("launch.json");
        let part = self.path.join("launch.part");
        let mut file = private().create(true).truncate(true).open(&part)?;
        serde_json::to_writer(&mut file, note)?;
        fs::rename(part, path)
    }

    pub(crate) fn read_note(&self) -> io::Result<LaunchNote> {
        let file = File::open(self.path.join("launch.json"))?;
        Ok(serde_json::from_reader(file.take(FILE_LIMIT))?)
    }

    /// The monitor's last words, if it had time for them. It may be hostile: what makes no sense is nothing.
    pub(crate) fn exit_record(&self) -> Option<ExitRecord> {
        let file = File::open(self.exit_path()).ok()?;
        let mut text = Vec::new();
        file.take(FILE_LIMIT).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The last line of the monitor's log, shortened, without control characters.
    pub(crate) fn last_line(&self) -> Option<String> {
        let mut file = File::open(self.log_path()).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
            .ok()?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(clean(line).chars().take(200).collect())
    }

    /// New lines of the log since `offset`, which is moved on; cuts the log when it gets long.
    pub(crate) fn new_lines(&self, offset: &mut u64) -> Vec<String> {
        let read = || -> io::Result<(Vec<u8>, u64)> {
            let mut file = File::options()
                .read(true)
                .write(true)
                .open(self.log_path())?;
            let length = file.metadata()?.len();
            let start = if *offset > length { 0 } else { *offset };
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            Read::by_ref(&mut file)
                .take(TAIL * 16)
                .read_to_end(&mut bytes)?;
            let mut next = start + bytes.len() as u64;
            // A line that is not finished comes next time.
            if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
                next -= (bytes.len() - end - 1) as u64;
                bytes.truncate(end + 1);
            } else if next < length {
                // Longer than any line of ours.
            } else {
                next = start;
                bytes.clear();
            }
            if length > LOG_LIMIT {
                file.set_len(0)?;
                next = 0;
            }
            Ok((bytes, next))
        };
        let Ok((bytes, next)) = read() else {
            return Vec::new();
        };
        *offset = next;
        String::from_utf8_lossy(&bytes).lines().map(clean).collect()
    }

    fn exit_path(&self) -> PathBuf {
        self.path.join("exit.json")
    }

    fn log_path(&self) -> PathBuf {
        self.path.join("vmm.log")
    }
}

fn clean(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn made() -> (tempfile::TempDir, RunDir) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("vms")).unwrap();
        let run = RunDir::new(directory.path(), Uuid::nil());
        run.create().unwrap();
        (directory, run)
    }

    #[test]
    fn last_words_are_read_and_nonsense_is_nothing() {
        let (directory, run) = made();
        assert_eq!(run.exit_record(), None);
        let mut file = run.create_exit_file().unwrap();
        assert_eq!(run.exit_record(), None);
        file.write_all(br#"{"reason": "killed"}"#).unwrap();
        assert!(run.exit_record().is_some());
        file.write_all(b"garbage").unwrap();
        assert_eq!(run.exit_record(), None);
        assert_eq!(list(directory.path()).unwrap().len(), 1);
        run.remove().unwrap();
        run.remove().unwrap();
        assert_eq!(list(directory.path()).unwrap().len(), 0);
    }

    #[test]
    fn the_log_is_followed_and_cut() {
        let (_directory, run) = made();
        let mut log = run.create_log().unwrap();
        let mut offset = 0;
        assert!(run.new_lines(&mut offset).is_empty());
        log.write_all(b"one\ntw").unwrap();
        assert_eq!(run.new_lines(&mut offset), ["one"]);
        log.write_all(b"o\n\x1b[31mred\n").unwrap();
        assert_eq!(run.new_lines(&mut offset), ["two", " [31mred"]);
        assert_eq!(run.last_line().unwrap(), " [31mred");
        log.write_all(&vec![b'x'; LOG_LIMIT as usize]).unwrap();
        log.write_all(b"\n").unwrap();
        run.new_lines(&mut offset);
        log.write_all(b"after\n").unwrap();
        assert_eq!(run.new_lines(&mut offset), ["after"]);
    }
}
