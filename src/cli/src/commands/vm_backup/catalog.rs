//! What lies in a folder of backups, and which of them are made of which.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use lodge_api::Name;
use lodge_client::ClientError;
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
    /// Its disks, by their names.
    pub disks: BTreeMap<Name, DiskFile>,
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

/// A folder that nobody else writes backups to meanwhile.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
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
            _lock: file,
        })
    }

    /// A file in it.
    pub fn at(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// What is in it, if it has backups. Those of another VM are not added to.
    pub fn read(&self, vm: Uuid) -> Result<Catalog, ClientError> {
        let path = self.at(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let backups = Vec::new();
                return Ok(Catalog { vm, backups });
            }
            Err(source) => return Err(failed(&path, source)),
        };
        let catalog: Catalog = serde_json::from_slice(&text).map_err(|error| {
            ClientError::Usage(format!("{} cannot be read: {error}", path.display()))
        })?;
        if catalog.vm != vm {
            let folder = self.path.display();
            let text =
                format!("{folder} has backups of another VM; give each VM a folder of its own");
            return Err(ClientError::Usage(text));
        }
        Ok(catalog)
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
            disks: [("data".parse().unwrap(), file)].into(),
        });
        folder.write(&catalog).unwrap();
        drop(folder);
        let folder = Folder::open(&path).unwrap();
        let again = folder.read(vm).unwrap();
        assert_eq!((again.next_number(), again), (2, catalog));
        assert!(folder.read(Uuid::from_u128(8)).is_err(), "another VM's");
        std::fs::write(folder.at(FILE), "{").unwrap();
        assert!(folder.read(vm).is_err(), "damaged");
        folder.remove(FILE).unwrap();
        folder.remove(FILE).unwrap();
    }
}
