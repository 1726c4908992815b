//! The one thread that writes.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::engine::{self, Engine, Write};
use super::reserve::Reserve;
use crate::StoreError;
use crate::batch::{Batch, Change};
use crate::snapshot::{Snapshot, Stored};

/// Most batches written together.
const GROUP: usize = 256;

/// A batch and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) reply: oneshot::Sender<Result<u64, StoreError>>,
}

/// Owns sled.
pub(super) struct Writer {
    directory: PathBuf,
    /// `None` after a failure: sled refuses everything after its first one, so it is opened anew.
    engine: Option<Engine>,
    state: Arc<RwLock<Snapshot>>,
    reserve: Reserve,
    /// Held as long as sled is used.
    _lock: File,
}

/// The changes of a group, on top of the durable state.
struct Group<'a> {
    base: &'a Snapshot,
    revision: u64,
    changes: HashMap<(String, String), Option<Stored>>,
}

impl Writer {
    pub(super) fn new(
        (directory, engine): (PathBuf, Engine),
        state: Arc<RwLock<Snapshot>>,
        reserve: Reserve,
        lock: File,
    ) -> Self {
        Self {
            directory,
            engine: Some(engine),
            state,
            reserve,
            _lock: lock,
        }
    }

    /// Works until the last sender is gone.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = jobs.try_recv()
            {
                group.push(next);
            }
            if let Err(error) = self.reserve.admit() {
                group = refuse_growth(group, &error);
                if !group.is_empty() {
                    self.use_reserve();
                }
            }
            self.write(group);
        }
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
    }

    /// The room of the reserve becomes the store's own at once: others write to a full filesystem, too.
    fn use_reserve(&self) {
        let given_up = self.reserve.give_up();
        if let Some(engine) = self.engine.as_ref().filter(|_| given_up) {
            engine.claim(self.reserve.size());
        }
    }

    fn write(&mut self, jobs: Vec<Job>) {
        let base = self.current();
        let mut group = Group {
            base: &base,
            revision: base.revision(),
            changes: HashMap::new(),
        };
        let outcomes: Vec<_> = jobs.iter().map(|job| group.add(&job.batch)).collect();
        let (revision, changes) = (group.revision, group.changes);
        let result = if changes.is_empty() {
            Ok(())
        } else {
            self.make_durable(&base, revision, &changes)
        };
        if result.is_ok() {
            self.publish(revision, changes);
        }
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            let answer = result.clone().and(outcome);
            // A caller that went away does not want to know.
            let _ = job.reply.send(answer);
        }
    }

    fn current(&self) -> Snapshot {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn make_durable(
        &mut self,
        base: &Snapshot,
        revision: u64,
        changes: &HashMap<(String, String), Option<Stored>>,
    ) -> Result<(), StoreError> {
        let mut writes = changes
            .iter()
            .map(|((table, key), stored)| match stored {
                Some(stored) => engine::put(table, key, stored),
                None => (engine::join(table, key), None),
            })
            .collect::<Vec<Write>>();
        writes.push(engine::put_revision(revision));
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => self.reopen(base)?,
        };
        if let Err(error) = engine.make_room(&writes) {
            self.engine = Some(engine);
            return Err(error);
        }
        match engine.apply(&writes) {
            Ok(()) => {
                self.engine = Some(engine);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the store failed to write");
                engine.close();
                Err(error)
            }
        }
    }

    /// Opens sled again after a failure, and takes back what it may have kept of the group that
    /// failed: it was not acknowledged.
    fn reopen(&self, base: &Snapshot) -> Result<Engine, StoreError> {
        let engine = Engine::open(&self.directory)?;
        let writes = engine::difference(&engine.load()?, base);
        if !writes.is_empty() {
            engine.apply(&writes)?;
        }
        tracing::info!("the store works again");
        Ok(engine)
    }

    fn publish(&self, revision: u64, changes: HashMap<(String, String), Option<Stored>>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for ((table, key), stored) in changes {
            match stored {
                Some(stored) => state.insert(&table, key, stored),
                None => state.remove(&table, &key),
            }
        }
        state.revision = revision;
    }
}

/// Refuses what neither makes room nor is needed for that; the rest may use the reserve.
fn refuse_growth(group: Vec<Job>, error: &StoreError) -> Vec<Job> {
    let needed = |job: &Job| job.batch.may_use_reserve || deletes(&job.batch);
    let (needed, other): (Vec<_>, Vec<_>) = group.into_iter().partition(needed);
    for job in other {
        let _ = job.reply.send(Err(error.clone()));
    }
    needed
}

fn deletes(batch: &Batch) -> bool {
    batch
        .steps
        .iter()
        .any(|step| matches!(step.change, Some(Change::Delete)))
}

impl Group<'_> {
    /// Adds a batch if its preconditions hold; answers its revision.
    fn add(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        for step in &batch.steps {
            let found = self.found(&step.table, &step.key);
            if !step.precondition.holds(found) {
                return Err(StoreError::Conflict {
                    table: step.table.clone(),
                    key: step.key.clone(),
                    expected: step.precondition,
                    found,
                });
            }
        }
        if batch.steps.iter().all(|step| step.change.is_none()) {
            return Ok(self.revision);
        }
        self.revision += 1;
        for step in &batch.steps {
            let stored = match &step.change {
                None => continue,
                Some(Change::Delete) => None,
                Some(Change::Put { schema, payload }) => Some(Stored {
                    schema: *schema,
                    revision: self.revision,
                    payload: payload.as_slice().into(),
                }),
            };
            self.changes
                .insert((step.table.clone(), step.key.clone()), stored);
        }
        Ok(self.revision)
    }

    fn found(&self, table: &str, key: &str) -> Option<u64> {
        match self.changes.get(&(table.to_owned(), key.to_owned())) {
            Some(changed) => changed.as_ref().map(|stored| stored.revision),
            None => self.base.raw(table, key).map(|stored| stored.revision),
        }
    }
}
