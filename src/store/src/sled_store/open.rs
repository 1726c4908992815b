//! Opening, and repairing what can be repaired.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::engine::{self, Engine, Loaded};
use super::losses::Losses;
use crate::StoreError;
use crate::export;
use crate::snapshot::Snapshot;

/// How long the lock of a process that is just ending is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// Revisions skipped when an older state is restored, so that no revision is given out twice.
const RESTORE_STEP: u64 = 1 << 20;

/// Everything the writer needs.
pub(super) struct Ready {
    pub(super) engine: (PathBuf, Engine),
    pub(super) snapshot: Snapshot,
    pub(super) warnings: Vec<String>,
    pub(super) losses: Losses,
    pub(super) exports: PathBuf,
    pub(super) lock: File,
}

struct Opening<'a> {
    directory: &'a Path,
    sled: PathBuf,
    exports: PathBuf,
    warnings: Vec<String>,
    losses: Losses,
}

pub(super) fn open(directory: &Path) -> Result<Ready, StoreError> {
    let mut opening = Opening {
        directory,
        sled: directory.join("sled"),
        exports: directory.join("exports"),
        warnings: Vec::new(),
        losses: Losses::of(directory),
    };
    for path in [directory, &opening.sled, &opening.exports] {
        make_directory(path)?;
    }
    let lock = take_lock(&directory.join("lock"))?;
    let (engine, loaded) = opening.open_or_restore()?;
    let snapshot = opening.mend(&engine, loaded)?;
    sync_tree(&opening.sled)
        .and_then(|()| sync_directory(directory))
        .map_err(|error| StoreError::io("flushing the store's directory", &error))?;
    for warning in &opening.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Ready {
        engine: (opening.sled, engine),
        snapshot,
        warnings: opening.warnings,
        losses: opening.losses,
        exports: opening.exports,
        lock,
    })
}

impl Opening<'_> {
    fn open_or_restore(&mut self) -> Result<(Engine, Loaded), StoreError> {
        remove_unfinished_snapshots(&self.sled)
            .map_err(|error| StoreError::io("clearing the store's directory", &error))?;
        let first = match self.open_once() {
            Err(StoreError::Damaged(first)) => first,
            other => return other,
        };
        // sled's snapshots only save it time: without them it reads its whole log.
        self.set_snapshots_aside()?;
        match self.open_once() {
            Ok(opened) => {
                self.warnings.push(format!(
                    "The store was damaged ({first}) and has been repaired; nothing was lost."
                ));
                Ok(opened)
            }
            Err(StoreError::Damaged(reason)) => self.restore(&reason),
            Err(other) => Err(other),
        }
    }

    fn open_once(&self) -> Result<(Engine, Loaded), StoreError> {
        let engine = Engine::open(&self.sled)?;
        match engine.load() {
            Ok(loaded) => Ok((engine, loaded)),
            Err(error) => {
                engine.close();
                Err(error)
            }
        }
    }

    fn set_snapshots_aside(&self) -> Result<(), StoreError> {
        let failed = |error| StoreError::io("setting damaged files aside", &error);
        let aside = self.damaged_path("snapshots");
        make_directory(&aside)?;
        for entry in fs::read_dir(&self.sled).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::rename(entry.path(), aside.join(entry.file_name())).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Starts anew from the last export, keeping the damaged files.
    fn restore(&mut self, reason: &str) -> Result<(Engine, Loaded), StoreError> {
        let failed = |error| StoreError::io("setting the damaged store aside", &error);
        self.losses.note().map_err(failed)?;
        let aside = self.damaged_path("store");
        fs::rename(&self.sled, &aside).map_err(failed)?;
        make_directory(&self.sled)?;
        let (found, errors) = export::newest(&self.exports);
        for error in errors {
            self.warnings
                .push(format!("An export of the store cannot be used: {error}."));
        }
        let (engine, empty) = self.open_once()?;
        let kept = aside.display();
        let Some((path, mut snapshot)) = found else {
            self.warnings.push(format!(
                "The store was damaged beyond repair ({reason}) and there is no export: it starts empty. \
                 The damaged files are in {kept}."
            ));
            return Ok((engine, empty));
        };
        snapshot.revision += RESTORE_STEP;
        engine.apply(&engine::difference(&empty, &snapshot))?;
        self.warnings.push(format!(
            "The store was damaged beyond repair ({reason}) and was restored from {}: changes after it are lost. \
             The damaged files are in {kept}.",
            path.display()
        ));
        let damaged = Vec::new();
        Ok((engine, Loaded { snapshot, damaged }))
    }

    /// Replaces single damaged records by those of the last export, or drops them; either way
    /// what was found is kept in a file.
    fn mend(&mut self, engine: &Engine, loaded: Loaded) -> Result<Snapshot, StoreError> {
        if loaded.damaged.is_empty() {
            return Ok(loaded.snapshot);
        }
        let path = self.damaged_path("records");
        self.losses
            .note()
            .and_then(|()| keep_records(&path, &loaded.damaged))
            .map_err(|error| StoreError::io("keeping damaged records", &error))?;
        let exported = export::newest(&self.exports)
            .0
            .map(|(_, snapshot)| snapshot);
        let mut wanted = loaded.snapshot.clone();
        for (raw, _) in &loaded.damaged {
            let shown = raw.escape_ascii().to_string();
            let copy = engine::split(raw).and_then(|(table, key)| {
                let stored = exported.as_ref()?.raw(table, key)?.clone();
                Some((table, key, stored))
            });
            let outcome = match copy {
                Some((table, key, stored)) => {
                    wanted.insert(table, key.to_owned(), stored);
                    "restored from the last export"
                }
                None => "dropped, as no export has it",
            };
            self.warnings.push(format!(
                "Record {shown} of the store was damaged and has been {outcome}; what was found is in {}.",
                path.display()
            ));
        }
        wanted.revision += 1;
        engine.apply(&engine::difference(&loaded, &wanted))?;
        Ok(wanted)
    }

    fn damaged_path(&self, what: &str) -> PathBuf {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let mut path = self.directory.join(format!("damaged-{what}-{seconds}"));
        let mut number = 1;
        while path.exists() {
            number += 1;
            path = self
                .directory
                .join(format!("damaged-{what}-{seconds}-{number}"));
        }
        path
    }
}

fn keep_records(path: &Path, records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    for (key, value) in records {
        writeln!(file, "{} {}", key.escape_ascii(), value.escape_ascii())?;
    }
    file.sync_all()
}

/// sled takes a snapshot it had not finished for one, and then refuses to open.
fn remove_unfinished_snapshots(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("making the store's directory", &error)),
        Ok(()) => path
            .parent()
            .map_or(Ok(()), sync_directory)
            .map_err(|error| StoreError::io("flushing a directory", &error)),
    }
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// sled does not flush the files it makes at first.
fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(directory)
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    let failed = |error| StoreError::io("locking the store", &error);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(StoreError::Locked);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
