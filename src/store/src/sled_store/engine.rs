//! sled itself, with what it leaves out: flushing the device, and not panicking.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::StoreError;
use crate::record::Frame;
use crate::snapshot::{Snapshot, Stored};

/// Memory sled may use for its page cache. Its default is 1 GiB.
const CACHE: u64 = 32 << 20;

/// Milliseconds between flushes of sled's own thread: a belt beside our braces.
const FLUSH_EVERY: u64 = 500;

/// Size of sled's segments in bytes; see [`crate::MAX_PAYLOAD`].
const SEGMENT: usize = 2 << 20;

/// Least room allocated ahead of sled, in bytes: two of its segments.
const ROOM: u64 = 2 * SEGMENT as u64;

/// How long sled's own lock is waited for, and between two looks at it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
const RELEASE_PERIOD: Duration = Duration::from_millis(5);

/// Separates table and key; neither may hold it.
const SEPARATOR: u8 = 0;

/// Key of the store's revision: no table has an empty name.
const REVISION_KEY: &[u8] = b"\0revision";

/// A write: key, and value or deletion.
pub(super) type Write = (Vec<u8>, Option<Vec<u8>>);

/// An open sled database.
pub(super) struct Engine {
    db: sled::Db,
    /// The file sled writes to, for flushing it to the device.
    file: File,
}

/// Threads of a sled that gave up in this process hold its lock a moment longer. Other processes are
/// kept out by our own lock.
fn still_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// What was found in sled.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) snapshot: Snapshot,
    /// Records that no store wrote so, as they are.
    pub(super) damaged: Vec<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// sled panics on some damaged files, and inside its locks. Either is damage to us.
fn guarded<T>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Damaged(format!("sled panicked {what}"))))
}

impl Engine {
    /// Opens or makes the database in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let patience = Instant::now() + RELEASE_PATIENCE;
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE)
            .segment_size(SEGMENT)
            .flush_every_ms(Some(FLUSH_EVERY));
        guarded("while opening", || {
            let db = loop {
                match config.open() {
                    Ok(db) => break db,
                    Err(error) if still_locked(&error) && Instant::now() < patience => {
                        std::thread::sleep(RELEASE_PERIOD);
                    }
                    Err(error) => return Err(StoreError::sled("opening the store", &error)),
                }
            };
            let file = File::options()
                .read(true)
                .write(true)
                .open(directory.join("db"))
                .map_err(|error| StoreError::io("opening the store's file", &error))?;
            Ok(Self { db, file })
        })
    }

    /// Reads everything.
    pub(super) fn load(&self) -> Result<Loaded, StoreError> {
        guarded("while reading", || {
            let mut loaded = Loaded::default();
            for row in self.db.iter() {
                let (key, value) =
                    row.map_err(|error| StoreError::sled("reading the store", &error))?;
                if !take(&mut loaded.snapshot, &key, &value) {
                    loaded.damaged.push((key.to_vec(), value.to_vec()));
                }
            }
            Ok(loaded)
        })
    }

    /// Writes all of it or nothing, and makes it durable.
    pub(super) fn apply(&self, writes: &[Write]) -> Result<(), StoreError> {
        guarded("while writing", || {
            // Only the transaction's own view may be used inside: anything else deadlocks.
            self.db
                .transaction(|view| {
                    for (key, value) in writes {
                        match value {
                            Some(value) => view.insert(key.as_slice(), value.as_slice())?,
                            None => view.remove(key.as_slice())?,
                        };
                    }
                    Ok(())
                })
                .map_err(
                    |error: sled::transaction::TransactionError<()>| match error {
                        sled::transaction::TransactionError::Storage(error) => {
                            StoreError::sled("writing the store", &error)
                        }
                        sled::transaction::TransactionError::Abort(()) => StoreError::Io {
                            what: "writing the store",
                            message: "the transaction was aborted".to_owned(),
                        },
                    },
                )?;
            self.db
                .flush()
                .map_err(|error| StoreError::sled("flushing the store", &error))?;
            self.sync()
        })
    }

    /// Allocates what a write may need behind the end of sled's file, or fails before sled has
    /// begun: running into a full filesystem it would hang for ever.
    pub(super) fn make_room(&self, writes: &[Write]) -> Result<(), StoreError> {
        let failed = |error: &io::Error| StoreError::io("allocating room for the store", error);
        let bytes: usize = writes
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        // sled writes whole pages of several records, in segments.
        let needed = ROOM + 4 * bytes as u64;
        let metadata = self.file.metadata().map_err(|error| failed(&error))?;
        let allocated = metadata.blocks().saturating_mul(512);
        if allocated >= metadata.len() + needed {
            return Ok(());
        }
        let more = self.allocate(metadata.len() + 2 * needed);
        more.or_else(|_| self.allocate(metadata.len() + needed))
            .map_err(|error| failed(&error))
    }

    /// Allocates more behind the end of sled's file than it ever does for one write, up to `bytes`, as far as there is room.
    pub(super) fn claim(&self, bytes: u64) {
        let Ok(metadata) = self.file.metadata() else {
            return;
        };
        let enough = metadata.len() + 2 * ROOM;
        for part in [bytes, bytes / 2, bytes / 4] {
            if self.allocate(enough + part).is_ok() {
                return;
            }
        }
    }

    /// Has sled's file take up so many bytes, whatever its length is.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes) {
            // A filesystem that cannot promise room.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_data()
            .map_err(|error| StoreError::io("flushing the store to the device", &error))
    }

    /// Closes, whatever state sled is in, and waits until another may open it.
    pub(super) fn close(self) {
        let Self { db, file } = self;
        if catch_unwind(AssertUnwindSafe(move || drop(db))).is_err() {
            tracing::warn!("sled panicked while closing");
        }
        wait_released(&file);
    }
}

/// sled is dropped before its threads have let go of the file and its lock.
fn wait_released(file: &File) {
    let patience = Instant::now() + RELEASE_PATIENCE;
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if Instant::now() >= patience {
            tracing::warn!("sled holds its lock after it was closed");
            return;
        }
        std::thread::sleep(RELEASE_PERIOD);
    }
    // Not left to the drop: a process being forked now holds the descriptor until its exec.
    if let Err(error) = file.unlock() {
        tracing::warn!("unlocking the store's file: {error}");
    }
}

/// Takes one row over; says whether it is sound.
fn take(snapshot: &mut Snapshot, key: &[u8], value: &[u8]) -> bool {
    let Ok(frame) = Frame::decode(key, value) else {
        return false;
    };
    if key == REVISION_KEY {
        snapshot.revision = snapshot.revision.max(frame.revision);
        return true;
    }
    let Some((table, key)) = split(key) else {
        return false;
    };
    // Should the revision's own record be damaged, it is at least that of every record.
    snapshot.revision = snapshot.revision.max(frame.revision);
    let stored = Stored {
        schema: frame.schema,
        revision: frame.revision,
        payload: frame.payload.into(),
    };
    snapshot.insert(table, key.to_owned(), stored);
    true
}

/// The key in sled of a record.
pub(super) fn join(table: &str, key: &str) -> Vec<u8> {
    [table.as_bytes(), &[SEPARATOR], key.as_bytes()].concat()
}

/// Table and key of a record's key in sled.
pub(super) fn split(key: &[u8]) -> Option<(&str, &str)> {
    let at = key.iter().position(|byte| *byte == SEPARATOR)?;
    let table = std::str::from_utf8(&key[..at]).ok()?;
    let key = std::str::from_utf8(&key[at + 1..]).ok()?;
    (!table.is_empty()).then_some((table, key))
}

/// The write that puts a record.
pub(super) fn put(table: &str, key: &str, stored: &Stored) -> Write {
    let key = join(table, key);
    let frame = Frame {
        schema: stored.schema,
        revision: stored.revision,
        payload: &stored.payload,
    };
    let value = frame.encode(&key);
    (key, Some(value))
}

/// The write that records the store's revision.
pub(super) fn put_revision(revision: u64) -> Write {
    let frame = Frame {
        schema: 0,
        revision,
        payload: &[],
    };
    (REVISION_KEY.to_vec(), Some(frame.encode(REVISION_KEY)))
}

/// What must be written to turn `found` into `wanted`.
pub(super) fn difference(found: &Loaded, wanted: &Snapshot) -> Vec<Write> {
    let mut writes = Vec::new();
    for (table, key, _) in found.snapshot.rows() {
        if wanted.raw(table, key).is_none() {
            writes.push((join(table, key), None));
        }
    }
    for (key, _) in &found.damaged {
        writes.push((key.clone(), None));
    }
    for (table, key, stored) in wanted.rows() {
        if found.snapshot.raw(table, key) != Some(stored) {
            writes.push(put(table, key, stored));
        }
    }
    if found.snapshot.revision != wanted.revision || !writes.is_empty() {
        writes.push(put_revision(wanted.revision));
    }
    writes
}
