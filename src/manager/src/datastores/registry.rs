//! The datastores that are open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use lodge_api::system::StorageHealth;
use lodge_api::{ErrorCode, Problem};
use lodge_block::datastore::{Datastore, Space};
use uuid::Uuid;

use super::home::Home;

/// What has not answered for that long is told not to work, and is not asked by anybody else. Disks that have to spin up first take less.
pub(super) const ANSWER: Duration = Duration::from_secs(20);

/// Where the files of a datastore are.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// What the others are in.
    pub(crate) root: Arc<Datastore>,
    pub(crate) disks: Arc<Datastore>,
    /// What snapshots have of the disks.
    pub(crate) saved: Arc<Datastore>,
}

/// The datastores of the host, by what records of disks say.
#[derive(Debug)]
pub(crate) struct Datastores {
    system: Folders,
    others: RwLock<HashMap<Uuid, Arc<Cell>>>,
}

/// What is known of a datastore.
#[derive(Debug, Default)]
pub(super) struct Cell {
    /// Held by whoever opens or closes it.
    pub(super) changing: tokio::sync::Mutex<()>,
    seen: Mutex<Seen>,
}

/// How a datastore was seen the last time.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) home: Option<Home>,
    pub(super) health: StorageHealth,
    /// What people were told of it.
    pub(super) told: StorageHealth,
    pub(super) space: Option<Space>,
    /// Why it is not open.
    pub(super) problem: String,
    /// What was found when it was opened.
    pub(super) notes: Vec<String>,
    /// Since when somebody looks who does not come back.
    pub(super) looking_since: Option<Instant>,
}

impl Cell {
    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Datastores {
    pub(crate) fn new(system: Folders) -> Self {
        Self {
            system,
            others: RwLock::default(),
        }
    }

    /// The host's own data storage.
    pub(crate) fn system(&self) -> &Folders {
        &self.system
    }

    /// The folders of a datastore.
    ///
    /// # Errors
    /// `WrongState` for one that is not there now.
    pub(crate) fn folders(&self, datastore: Option<Uuid>) -> Result<Folders, Problem> {
        let Some(id) = datastore else {
            return Ok(self.system.clone());
        };
        let Some(cell) = self.find(id) else {
            return Err(missing("it is not known to this host"));
        };
        let seen = cell.seen();
        // Whoever asked it for something would wait as well.
        let waiting = seen.looking_since.map(|since| since.elapsed());
        if waiting.is_some_and(|waiting| waiting > ANSWER) {
            return Err(missing("it does not answer"));
        }
        let home = seen.home.ok_or_else(|| missing(&seen.problem))?;
        Ok(home.folders)
    }

    /// The folders of all that are open, but for those of one.
    pub(super) fn others(&self, id: Uuid) -> Vec<Folders> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let others = others.iter().filter(|(other, _)| **other != id);
        let open = others.filter_map(|(_, cell)| Some(cell.seen().home?.folders));
        open.chain([self.system.clone()]).collect()
    }

    /// What is known of one, from now on if nothing was.
    pub(super) fn cell(&self, id: Uuid) -> Arc<Cell> {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let cell = Cell::default();
            cell.update(|seen| {
                seen.health = StorageHealth::Missing;
                "it has not been looked for yet".clone_into(&mut seen.problem);
            });
            Arc::new(cell)
        };
        others.entry(id).or_insert_with(new).clone()
    }

    pub(super) fn find(&self, id: Uuid) -> Option<Arc<Cell>> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        others.get(&id).cloned()
    }

    pub(super) fn forget(&self, id: Uuid) {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        others.remove(&id);
    }
}

fn missing(problem: &str) -> Problem {
    Problem::new(
        ErrorCode::WrongState,
        format!("the datastore is missing: {problem}"),
    )
    .with_hint("see to its disk or server; `lodge datastore list` shows when it is there")
}
