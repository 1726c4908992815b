//! What lies in a folder of backups, and which of them are made of which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use lodge_api::Name;
use lodge_client::ClientError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commands::export::failed;

const FILE: &str = "backups.json";

/// The backups of one VM in one folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Catalog {
    /// The VM's id: its name may become another's.
    pub vm: Uuid,
    /// In the order in which they were made.
    pub backups: Vec<Backup>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backup {
    /// From 1 on.
    pub number: u32,
    /// When the VM was as it is there.
    pub taken_at: String,
    /// The snapshot it was made of. The host keeps the last one's, for the next.
    pub snapshot: Name,
    /// The VM's configuration.
    pub configuration: String,
    /// Its UEFI variables, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<String>,
    /// Its disks, by their names.
    pub disks: BTreeMap<Name, DiskFile>,
}

impl Backup {
    /// What its disks take in the folder.
    pub fn bytes(&self) -> u64 {
        self.disks.values().map(|disk| disk.bytes).sum()
    }

    /// All that belongs to it alone.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let disks = self.disks.values().map(|disk| disk.file.as_str());
        let others = [Some(&self.configuration), self.variables.as_ref()];
        disks.chain(others.into_iter().flatten().map(String::as_str))
    }
}

/// A disk in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiskFile {
    pub file: String,
    pub bytes: u64,
    /// The backup whose file it is to be read upon; absent: it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u32>,
}

/// A folder. Nobody else writes backups to it meanwhile, unless it is only read.
pub(super) struct Folder {
    path: PathBuf,
    _lock: Option<File>,
}

impl Folder {
    /// Opens it, and makes it if it is not there.
    pub fn open(path: &Path) -> Result<Self, ClientError> {
        std::fs::create_dir_all(path).map_err(|source| failed(path, source))?;
        let lock = path.join("backups.lock");
        let file = File::create(&lock).map_err(|source| failed(&lock, source))?;
        file.try_lock().map_err(|_| {
            let text = format!("another backup is being written to {}", path.display());
            ClientError::Usage(text)
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: Some(file),
        })
    }

    /// One that is only read, while others may write to it: what is in the list stays as it is.
    pub fn to_read(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _lock: None,
        }
    }

    /// A file in it.
    pub fn at(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// What is in it, if it has backups. Those of another VM are not added to.
    pub fn read(&self, vm: Uuid) -> Result<Catalog, ClientError> {
        if !self.at(FILE).exists() {
            let backups = Vec::new();
            return Ok(Catalog { vm, backups });
        }
        let catalog = self.contents()?;
        if catalog.vm != vm {
            let folder = self.path.display();
            let text =
                format!("{folder} has backups of another VM; give each VM a folder of its own");
            return Err(ClientError::Usage(text));
        }
        Ok(catalog)
    }

    /// What is in it.
    pub fn contents(&self) -> Result<Catalog, ClientError> {
        self.read_file(FILE)
    }

    /// What is in a file of JSON.
    pub fn read_file<T: DeserializeOwned>(&self, name: &str) -> Result<T, ClientError> {
        let path = self.at(name);
        let text = std::fs::read(&path).map_err(|source| failed(&path, source))?;
        serde_json::from_slice(&text).map_err(|error| {
            ClientError::Usage(format!("{} cannot be read: {error}", path.display()))
        })
    }

    /// Fails if a file is not there.
    pub fn require(&self, name: &str) -> Result<(), ClientError> {
        let path = self.at(name);
        let found = std::fs::metadata(&path).map(drop);
        found.map_err(|source| failed(&path, source))
    }

    /// Writes what is in it; before that is done, the old list is there.
    pub fn write(&self, catalog: &Catalog) -> Result<(), ClientError> {
        self.write_file(FILE, catalog)
    }

    /// Writes a file as JSON, whole or not at all.
    pub fn write_file<T: Serialize>(&self, name: &str, content: &T) -> Result<(), ClientError> {
        let (path, new) = (self.at(name), self.at(&format!("{name}.new")));
        let text = serde_json::to_string_pretty(content)
            .map_err(|error| failed(&new, io::Error::other(error)))?;
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        });
        written.map_err(|source| failed(&path, source))
    }

    /// Removes what a backup has left that broke off.
    pub fn remove(&self, file: &str) -> Result<(), ClientError> {
        match std::fs::remove_file(self.at(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(&self.at(file), error))
            }
            _ => Ok(()),
        }
    }
}

impl Catalog {
    /// The number of the next backup.
    pub fn next_number(&self) -> u32 {
        self.backups.last().map_or(1, |last| last.number + 1)
    }

    /// The backup of that number, or the newest.
    pub fn backup(&self, number: Option<u32>) -> Result<&Backup, ClientError> {
        let found = match number {
            Some(number) => self.backups.iter().find(|one| one.number == number),
            None => self.backups.last(),
        };
        found.ok_or_else(|| {
            let there = self.backups.iter();
            let there: Vec<_> = there
                .map(|one| format!("{} of {}", one.number, one.taken_at))
                .collect();
            let text = format!("there is no such backup; there are: {}", there.join(", "));
            ClientError::Usage(text)
        })
    }

    /// Takes out what is older than the newest `keep` backups and none of them is made of.
    pub fn prune(&mut self, keep: usize) -> Vec<Backup> {
        let old = self.backups.len().saturating_sub(keep);
        let mut needed: BTreeSet<u32> = self.backups[old..].iter().map(|one| one.number).collect();
        // Each is made of one before it.
        for backup in self.backups.iter().rev() {
            if needed.contains(&backup.number) {
                needed.extend(backup.disks.values().filter_map(|disk| disk.since));
            }
        }
        let all = std::mem::take(&mut self.backups);
        let (kept, gone) = all
            .into_iter()
            .partition(|one| needed.contains(&one.number));
        self.backups = kept;
        gone
    }

    /// The files of a disk, from the whole one to that of the backup.
    pub fn chain(&self, backup: &Backup, disk: &Name) -> Result<Vec<&DiskFile>, ClientError> {
        let (mut files, mut number) = (Vec::new(), backup.number);
        loop {
            let one = self.backups.iter().find(|one| one.number == number);
            let Some(file) = one.and_then(|one| one.disks.get(disk)) else {
                let text = format!("{FILE} has no file of the disk {disk} in backup {number}");
                return Err(ClientError::Usage(text));
            };
            files.insert(0, file);
            match file.since {
                None => return Ok(files),
                Some(since) if since < number => number = since,
                Some(since) => {
                    let text = format!("{FILE} says that backup {number} is made of {since}");
                    return Err(ClientError::Usage(text));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_vms_and_one_writers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web");
        let folder = Folder::open(&path).unwrap();
        assert!(Folder::open(&path).is_err(), "it is written to");
        let vm = Uuid::from_u128(7);
        let mut catalog = folder.read(vm).unwrap();
        assert_eq!(catalog.next_number(), 1);
        let file = DiskFile {
            file: "data.0001.qcow2".to_owned(),
            bytes: 5,
            since: None,
        };
        catalog.backups.push(Backup {
            number: 1,
            taken_at: "2026-11-30T10:00:00Z".to_owned(),
            snapshot: "backup-1".parse().unwrap(),
            configuration: "vm.0001.json".to_owned(),
            variables: None,
            disks: [("data".parse().unwrap(), file)].into(),
        });
        folder.write(&catalog).unwrap();
        drop(folder);
        let folder = Folder::open(&path).unwrap();
        let again = folder.read(vm).unwrap();
        assert_eq!((again.next_number(), again), (2, catalog));
        assert!(Folder::to_read(&path).contents().is_ok(), "others may read");
        assert!(folder.read(Uuid::from_u128(8)).is_err(), "another VM's");
        std::fs::write(folder.at(FILE), "{").unwrap();
        assert!(folder.read(vm).is_err(), "damaged");
        folder.remove(FILE).unwrap();
        folder.remove(FILE).unwrap();
    }

    #[test]
    fn chains_begin_with_what_is_whole() {
        let disk: Name = "data".parse().unwrap();
        let backup = |number: u32, since: Option<u32>| Backup {
            number,
            taken_at: format!("day {number}"),
            snapshot: "backup".parse().unwrap(),
            configuration: String::new(),
            variables: None,
            disks: [(
                disk.clone(),
                DiskFile {
                    file: number.to_string(),
                    bytes: 1,
                    since,
                },
            )]
            .into(),
        };
        let mut catalog = Catalog {
            vm: Uuid::nil(),
            backups: vec![
                backup(1, None),
                backup(2, Some(1)),
                backup(3, None),
                backup(4, Some(3)),
                backup(5, Some(4)),
            ],
        };
        let chain = |catalog: &Catalog, number| {
            let backup = catalog.backup(number)?;
            let files = catalog.chain(backup, &disk)?;
            Ok::<_, ClientError>(files.iter().map(|one| one.file.clone()).collect::<Vec<_>>())
        };
        assert_eq!(chain(&catalog, None).unwrap(), ["3", "4", "5"]);
        assert_eq!(chain(&catalog, Some(2)).unwrap(), ["1", "2"]);
        let problem = chain(&catalog, Some(6)).unwrap_err().to_string();
        assert!(problem.contains("5 of day 5"), "{problem}");
        let mut kept = catalog.clone();
        let mut pruned = |keep| {
            let gone = kept.prune(keep);
            let files = gone.iter().flat_map(Backup::files).map(str::to_owned);
            files.filter(|file| !file.is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(pruned(9), [""; 0]);
        assert_eq!(pruned(4), [""; 0], "1 is what 2 is made of");
        assert_eq!(pruned(2), ["1", "2"]);
        assert_eq!(pruned(1), [""; 0]);
        assert_eq!(chain(&kept, None).unwrap(), ["3", "4", "5"]);
        catalog.backups.remove(2);
        assert!(chain(&catalog, None).is_err(), "one is missing");
        catalog.backups[0] = backup(1, Some(1));
        assert!(chain(&catalog, Some(2)).is_err(), "made of itself");
    }
}
