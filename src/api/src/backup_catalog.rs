//! The list of a guest's backups, `backups.json`, as it lies in a folder or a bucket beside them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Name;

/// Name of the file.
pub const FILE: &str = "backups.json";

/// The backups of one guest in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The guest's id: its name may become another's.
    pub vm: Uuid,
    /// What it was called at its last backup; absent in lists of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// In the order in which they were made.
    pub backups: Vec<Entry>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1 on.
    pub number: u32,
    /// When the guest was as it is there.
    pub taken_at: Timestamp,
    /// The snapshot it was made of. The host keeps the last one's, for the next.
    pub snapshot: Name,
    /// File with the guest's configuration.
    pub configuration: String,
    /// File with its UEFI variables, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<String>,
    /// Its disks, by their names.
    pub disks: BTreeMap<Name, DiskFile>,
    /// SHA-256 of those two files, by their names, in hexadecimal; absent where nobody computed them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checksums: BTreeMap<String, String>,
}

/// A disk in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFile {
    /// Name of the file.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of it, in hexadecimal; absent where nobody computed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The backup whose file it is to be read upon; absent: it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u32>,
}

impl Entry {
    /// What its disks take.
    pub fn bytes(&self) -> u64 {
        let disks = self.disks.values();
        disks.fold(0, |sum, disk| sum.saturating_add(disk.bytes))
    }

    /// All that belongs to it alone.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let disks = self.disks.values().map(|disk| disk.file.as_str());
        let others = [Some(&self.configuration), self.variables.as_ref()];
        disks.chain(others.into_iter().flatten().map(String::as_str))
    }

    /// The backups that its disks are to be read upon.
    pub fn made_of(&self) -> BTreeSet<u32> {
        self.disks.values().filter_map(|disk| disk.since).collect()
    }
}

impl Catalog {
    /// That of a guest without backups.
    pub fn of(vm: Uuid) -> Self {
        Self {
            vm,
            name: None,
            backups: Vec::new(),
        }
    }

    /// The number of the next backup.
    pub fn next_number(&self) -> u32 {
        let last = self.backups.iter().map(|one| one.number).max();
        last.map_or(1, |last| last.saturating_add(1))
    }

    /// The backup of that number, or the newest.
    ///
    /// # Errors
    /// Which there are, for a person.
    pub fn backup(&self, number: Option<u32>) -> Result<&Entry, String> {
        let found = match number {
            Some(number) => self.backups.iter().find(|one| one.number == number),
            None => self.backups.last(),
        };
        found.ok_or_else(|| {
            let there = self.backups.iter();
            let there: Vec<_> = there
                .map(|one| format!("{} of {}", one.number, one.taken_at))
                .collect();
            format!("there is no such backup; there are: {}", there.join(", "))
        })
    }

    /// Takes out what is older than the newest `keep` backups and none of them is made of.
    pub fn prune(&mut self, keep: usize) -> Vec<Entry> {
        let old = self.backups.len().saturating_sub(keep);
        let mut needed: BTreeSet<u32> = self.backups[old..].iter().map(|one| one.number).collect();
        // Each is made of one before it.
        for backup in self.backups.iter().rev() {
            if needed.contains(&backup.number) {
                needed.extend(backup.made_of());
            }
        }
        self.take_out(|one| !needed.contains(&one.number))
    }

    /// The backups that are made of one, directly or not.
    pub fn built_on(&self, number: u32) -> BTreeSet<u32> {
        let mut built = BTreeSet::from([number]);
        for backup in &self.backups {
            if backup.made_of().iter().any(|since| built.contains(since)) {
                built.insert(backup.number);
            }
        }
        built.remove(&number);
        built
    }

    /// Takes out those of these numbers.
    pub fn remove(&mut self, numbers: &BTreeSet<u32>) -> Vec<Entry> {
        self.take_out(|one| numbers.contains(&one.number))
    }

    fn take_out(&mut self, gone: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let all = std::mem::take(&mut self.backups);
        let (out, kept) = all.into_iter().partition(|one| gone(one));
        self.backups = kept;
        out
    }

    /// The files of a disk, from the whole one to that of the backup.
    ///
    /// # Errors
    /// What is wrong with the list, for a person.
    pub fn chain(&self, backup: &Entry, disk: &Name) -> Result<Vec<&DiskFile>, String> {
        let (mut files, mut number) = (Vec::new(), backup.number);
        loop {
            let one = self.backups.iter().find(|one| one.number == number);
            let Some(file) = one.and_then(|one| one.disks.get(disk)) else {
                return Err(format!(
                    "{FILE} has no file of the disk {disk} in backup {number}"
                ));
            };
            files.push(file);
            match file.since {
                None => break,
                Some(since) if since < number => number = since,
                Some(since) => {
                    return Err(format!(
                        "{FILE} says that backup {number} is made of {since}"
                    ));
                }
            }
        }
        files.reverse();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Name {
        "data".parse().unwrap()
    }

    fn backup(number: u32, since: Option<u32>) -> Entry {
        Entry {
            number,
            taken_at: Timestamp::from_second(i64::from(number)).unwrap(),
            snapshot: "backup".parse().unwrap(),
            configuration: String::new(),
            variables: None,
            disks: [(
                disk(),
                DiskFile {
                    file: number.to_string(),
                    bytes: 1,
                    sha256: None,
                    since,
                },
            )]
            .into(),
            checksums: BTreeMap::new(),
        }
    }

    fn catalog() -> Catalog {
        Catalog {
            backups: vec![
                backup(1, None),
                backup(2, Some(1)),
                backup(3, None),
                backup(4, Some(3)),
                backup(5, Some(4)),
            ],
            ..Catalog::of(Uuid::nil())
        }
    }

    fn chain(catalog: &Catalog, number: Option<u32>) -> Result<Vec<String>, String> {
        let backup = catalog.backup(number)?;
        let files = catalog.chain(backup, &disk())?;
        Ok(files.iter().map(|one| one.file.clone()).collect())
    }

    #[test]
    fn chains_begin_with_what_is_whole() {
        let mut catalog = catalog();
        assert_eq!(chain(&catalog, None).unwrap(), ["3", "4", "5"]);
        assert_eq!(chain(&catalog, Some(2)).unwrap(), ["1", "2"]);
        let problem = chain(&catalog, Some(6)).unwrap_err();
        assert!(problem.contains("5 of 1970"), "{problem}");
        catalog.backups.remove(2);
        assert!(chain(&catalog, None).is_err(), "one is missing");
        catalog.backups[0] = backup(1, Some(1));
        assert!(chain(&catalog, Some(2)).is_err(), "made of itself");
    }

    #[test]
    fn what_newer_ones_are_made_of_stays() {
        let mut kept = catalog();
        let mut pruned = |keep| {
            let gone = kept.prune(keep);
            let files = gone.iter().flat_map(Entry::files).map(str::to_owned);
            files.filter(|file| !file.is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(pruned(9), [""; 0]);
        assert_eq!(pruned(4), [""; 0], "1 is what 2 is made of");
        assert_eq!(pruned(2), ["1", "2"]);
        assert_eq!(pruned(1), [""; 0]);
        assert_eq!(chain(&kept, None).unwrap(), ["3", "4", "5"]);
    }

    #[test]
    fn it_is_known_what_is_made_of_one() {
        let mut catalog = catalog();
        assert_eq!(catalog.built_on(3), BTreeSet::from([4, 5]));
        assert_eq!(catalog.built_on(1), BTreeSet::from([2]));
        assert!(catalog.built_on(5).is_empty() && catalog.built_on(9).is_empty());
        assert_eq!(catalog.remove(&BTreeSet::from([4, 5, 7])).len(), 2);
        assert_eq!(chain(&catalog, None).unwrap(), ["3"]);
        // A number is never given twice while later ones are there.
        assert_eq!(catalog.next_number(), 4);
    }

    #[test]
    fn lists_of_old_are_read() {
        let old = r#"{"vm": "00000000-0000-0000-0000-000000000007", "backups": [{"number": 1, "taken_at": "2026-11-30T10:00:00Z",
            "snapshot": "backup-1", "configuration": "vm.0001.json", "disks": {"data": {"file": "data.0001.qcow2", "bytes": 5}}}]}"#;
        let catalog: Catalog = serde_json::from_str(old).unwrap();
        assert_eq!(catalog.backups[0].bytes(), 5);
        assert_eq!(catalog.backups[0].files().count(), 2);
    }
}
