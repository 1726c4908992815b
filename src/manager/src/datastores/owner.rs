//! Whose a datastore is that several hosts can reach.
//!
//! A file says so, and is locked by the host that uses the datastore. Servers of NFS take a lock back when its holder has not been heard
//! of for about a minute and a half: then another host may take the datastore over, and not before.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name of the file, beside the folders.
const FILE: &str = "lodge-datastore.json";

/// Length of the file. It is written over in one piece, and never becomes longer.
const LENGTH: usize = 512;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The datastore.
    pub(super) id: Uuid,
    /// The host that uses it.
    pub(super) host: Uuid,
    /// Its name when it began to, for people.
    pub(super) hostname: String,
}

/// The lock on the file. It goes when this does.
#[derive(Debug)]
pub(super) struct Claim {
    file: File,
    content: Vec<u8>,
}

/// Why a datastore cannot be had. Text for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("the host \"{0}\" uses it")]
    Used(String),
    #[error("the host \"{0}\" has taken it over")]
    TakenOver(String),
    #[error("{FILE}: {0}")]
    Io(#[from] io::Error),
}

impl Owner {
    /// Who uses the datastore in `root`, or has used it last, if one is there.
    pub(super) fn of(root: &Path) -> io::Result<Option<Self>> {
        match open(root, false) {
            Ok(file) => read(&file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Locks the datastore in `root`, which is this owner's. With `take` it becomes that, whosever it was before.
    pub(super) fn claim(&self, root: &Path, take: bool) -> Result<Claim, ClaimError> {
        let file = open(root, take)?;
        let before = read(&file).ok();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let by = before.map_or_else(|| "unknown".to_owned(), |owner| owner.hostname);
                return Err(ClaimError::Used(by));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // As it is now that nobody else changes it.
        let now = read(&file);
        let content = self.to_bytes()?;
        if take {
            file.write_all_at(&content, 0)?;
            file.sync_all()?;
            File::open(root)?.sync_all()?;
        } else {
            let now = now?;
            if (now.id, now.host) != (self.id, self.host) {
                return Err(ClaimError::TakenOver(now.hostname));
            }
        }
        Ok(Claim { file, content })
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut content = serde_json::to_vec(self)?;
        if content.len() >= LENGTH {
            return Err(io::Error::other("the host's name is too long"));
        }
        content.resize(LENGTH - 1, b' ');
        content.push(b'\n');
        Ok(content)
    }
}

impl Claim {
    /// Whether the server still knows of it: what is written under a lock that it has taken back fails.
    pub(super) fn holds(&self) -> bool {
        let written = self.file.write_all_at(&self.content, 0);
        written.and_then(|()| self.file.sync_data()).is_ok()
    }

    /// Removes the file: nobody's datastore is there any more.
    pub(super) fn give_up(root: &Path) -> io::Result<()> {
        std::fs::remove_file(root.join(FILE))
    }
}

fn open(root: &Path, make: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(make)
        .mode(0o600)
        // Somebody else may have made something else of it.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(root.join(FILE))
}

fn read(file: &File) -> io::Result<Owner> {
    let mut content = Vec::new();
    let mut part = [0; LENGTH];
    while content.len() < LENGTH {
        match file.read_at(&mut part, content.len() as u64)? {
            0 => break,
            count => content.extend_from_slice(&part[..count]),
        }
    }
    let owner: Owner = serde_json::from_slice(&content)?;
    Ok(Owner {
        hostname: printable(&owner.hostname),
        ..owner
    })
}

/// Others write there, too.
fn printable(name: &str) -> String {
    name.chars()
        .filter(|letter| letter.is_ascii_graphic())
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(hostname: &str) -> Owner {
        Owner {
            id: Uuid::now_v7(),
            host: Uuid::now_v7(),
            hostname: hostname.to_owned(),
        }
    }

    #[test]
    fn one_host_at_a_time_uses_a_datastore() {
        let root = tempfile::tempdir().unwrap();
        let first = owner("first");
        assert_eq!(Owner::of(root.path()).unwrap(), None);
        let claim = first.claim(root.path(), true).unwrap();
        assert!(claim.holds());
        assert_eq!(Owner::of(root.path()).unwrap(), Some(first.clone()));

        let second = Owner {
            id: first.id,
            ..owner("second")
        };
        let refused = second.claim(root.path(), true).unwrap_err();
        assert!(matches!(refused, ClaimError::Used(by) if by == "first"));
        assert_eq!(Owner::of(root.path()).unwrap(), Some(first.clone()));
        // The same host, whose manager has been started anew.
        drop(claim);
        drop(first.claim(root.path(), false).unwrap());

        let taken = second.claim(root.path(), true).unwrap();
        drop(taken);
        let refused = first.claim(root.path(), false).unwrap_err();
        assert!(matches!(refused, ClaimError::TakenOver(by) if by == "second"));
    }

    #[test]
    fn what_others_wrote_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(FILE);
        for content in ["", "{}", "\u{0}", &"[".repeat(100_000)] {
            std::fs::write(&file, content).unwrap();
            assert!(Owner::of(root.path()).is_err());
            assert!(owner("first").claim(root.path(), false).is_err());
        }
        let name = "\u{1b}[31mred\n".repeat(20);
        let text = serde_json::to_string(&owner(&name[..100])).unwrap();
        std::fs::write(&file, text).unwrap();
        let hostname = Owner::of(root.path()).unwrap().unwrap().hostname;
        assert!(!hostname.contains(['\u{1b}', '\n']) && hostname.len() <= 64);

        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert!(owner("first").claim(root.path(), true).is_err());
    }

    #[test]
    fn a_name_that_has_no_room_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(owner(&"x".repeat(600)).claim(root.path(), true).is_err());
    }
}
