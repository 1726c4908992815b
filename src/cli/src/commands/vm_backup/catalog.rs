//! A folder of backups.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use lodge_api::backup_catalog::{Catalog, FILE};
use lodge_client::ClientError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::commands::export::failed;

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
            return Ok(Catalog::of(vm));
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

#[cfg(test)]
mod tests {
    use lodge_api::backup_catalog::{DiskFile, Entry};

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
            sha256: None,
            since: None,
        };
        catalog.backups.push(Entry {
            number: 1,
            taken_at: "2026-11-30T10:00:00Z".parse().unwrap(),
            snapshot: "backup-1".parse().unwrap(),
            configuration: "vm.0001.json".to_owned(),
            variables: None,
            disks: [("data".parse().unwrap(), file)].into(),
            checksums: Default::default(),
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
}
