//! The store of a single host, on sled.
//!
//! sled alone does not make anything durable: it never asks the device to flush.
//! One thread therefore owns it, gathers the batches that wait, writes them in one
//! transaction, flushes sled, flushes the device, and only then answers. Readers never
//! touch sled: they see a copy in memory, which changes when a batch is durable.

mod engine;
mod losses;
mod open;
mod reserve;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::batch::{Batch, Change, Precondition};
use crate::export::{self, ExportError};
use crate::snapshot::Snapshot;
use crate::{CommitFuture, Store, StoreError};

/// Batches that wait for the writer; more make callers wait.
const QUEUE: usize = 256;

/// How long a commit waits for the device. What hangs that long is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Generations of exports kept, at least 1.
    pub keep_exports: usize,
    /// Batches that do not delete anything are refused when less than this is free, in bytes.
    pub min_free: u64,
    /// Size in bytes of a file that is kept to be given up when the filesystem is full, so that
    /// things can still be deleted.
    pub reserve: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            keep_exports: 8,
            min_free: 8 << 20,
            reserve: 8 << 20,
        }
    }
}

/// An opened store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SledStore,
    /// What had to be repaired, for people; empty when all is well.
    pub warnings: Vec<String>,
}

/// A [`Store`] in a directory of its own, open in one process at a time. Dropping it closes it.
#[derive(Debug)]
pub struct SledStore {
    state: Arc<RwLock<Snapshot>>,
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<writer::Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    exports: Mutex<PathBuf>,
    keep_exports: usize,
    losses: losses::Losses,
}

impl SledStore {
    /// Opens the store in `directory`, making it when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it open, [`StoreError::NoSpace`],
    /// [`StoreError::Io`]. Damage is repaired, see [`Opened::warnings`].
    pub fn open(directory: &Path) -> Result<Opened, StoreError> {
        Self::open_with(directory, &StoreOptions::default())
    }

    /// Opens with other than the usual options.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open_with(directory: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
        let open::Ready {
            engine,
            snapshot,
            warnings,
            losses,
            exports,
            lock,
        } = open::open(directory)?;
        let state = Arc::new(RwLock::new(snapshot));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let reserve = reserve::Reserve::new(directory, options);
        let writer = writer::Writer::new(engine, state.clone(), reserve, lock);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(jobs))
            .map_err(|error| StoreError::io("starting the writer", &error))?;
        let store = Self {
            state,
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            exports: Mutex::new(exports),
            keep_exports: options.keep_exports,
            losses,
        };
        Ok(Opened { store, warnings })
    }

    /// [`Store::commit`] for callers without an executor. Must not be called from async code.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_blocking(&self, batch: Batch) -> Result<u64, StoreError> {
        let queue = self.queue().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue
            .blocking_send(writer::Job { batch, reply })
            .map_err(|_| StoreError::Closed)?;
        answer.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    /// Whether records that were acknowledged may be missing, because the store was damaged at this opening or an earlier one:
    /// what seems to belong to nothing may well belong to such a record.
    pub fn has_losses(&self) -> bool {
        self.losses.noted()
    }

    /// Says that what belonged to records that may be missing is looked after: [`SledStore::has_losses`] is false from now on.
    ///
    /// # Errors
    /// When the host refuses; it stays true then.
    pub fn settle_losses(&self) -> std::io::Result<()> {
        self.losses.settle()
    }

    /// Writes everything to a file beside the store, from which it is restored should it get
    /// damaged. Does nothing when the newest export is up to date. Blocks on I/O.
    ///
    /// # Errors
    /// When the file cannot be written; older exports stay.
    pub fn export(&self) -> Result<PathBuf, ExportError> {
        let directory = lock(&self.exports);
        let snapshot = self.snapshot();
        if let Some(path) = export::up_to_date(&directory, snapshot.revision())? {
            return Ok(path);
        }
        Ok(export::write(&directory, &snapshot, self.keep_exports)?)
    }

    /// Replaces everything by what an export holds, in one batch. Blocks; must not be called
    /// from async code.
    ///
    /// # Errors
    /// [`ExportError::Invalid`] for an incomplete file, or why the batch failed; nothing changed.
    pub fn import(&self, path: &Path) -> Result<u64, ExportError> {
        let invalid = |problem: String| ExportError::Invalid {
            path: path.to_owned(),
            problem,
        };
        let wanted = export::read(path)?;
        let mut batch = Batch::new();
        for (table, key, _) in self.snapshot().rows() {
            if wanted.raw(table, key).is_none() {
                batch
                    .push(table, key.clone(), Precondition::Any, Some(Change::Delete))
                    .map_err(|error| invalid(error.to_string()))?;
            }
        }
        for (table, key, stored) in wanted.rows() {
            let put = Change::Put {
                schema: stored.schema,
                payload: stored.payload.to_vec(),
            };
            batch
                .push(table, key.clone(), Precondition::Any, Some(put))
                .map_err(|error| invalid(error.to_string()))?;
        }
        self.commit_blocking(batch)
            .map_err(|error| invalid(error.to_string()))
    }

    /// Finishes what is queued, flushes and closes; [`StoreError::Closed`] answers what comes later.
    /// Reading goes on. Blocks.
    pub fn close(&self) {
        lock(&self.queue).take();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }

    fn queue(&self) -> Option<mpsc::Sender<writer::Job>> {
        lock(&self.queue).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for SledStore {
    fn snapshot(&self) -> Snapshot {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn commit(&self, batch: Batch) -> CommitFuture {
        let queue = self.queue();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            queue
                .ok_or(StoreError::Closed)?
                .send(writer::Job { batch, reply })
                .await
                .map_err(|_| StoreError::Closed)?;
            tokio::time::timeout(PATIENCE, answer)
                .await
                .map_err(|_| StoreError::Io {
                    what: "writing the store",
                    message: format!(
                        "the device has not answered for {} seconds",
                        PATIENCE.as_secs()
                    ),
                })?
                .map_err(|_| StoreError::Closed)?
        })
    }
}
