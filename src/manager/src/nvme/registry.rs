//! How connections and exports are, as they were seen last.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lodge_api::nvme::NvmeState;
use lodge_host::nvmf::HostIdentity;
use uuid::Uuid;

use crate::core::Core;

/// The first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of all of them.
#[derive(Debug)]
pub(crate) struct Nvme {
    pub(super) host: HostIdentity,
    connections: Mutex<HashMap<Uuid, Arc<Link>>>,
    exports: Mutex<HashMap<Uuid, Applied>>,
    /// Held by whoever changes what the kernel exports.
    pub(super) exporting: Arc<tokio::sync::Mutex<()>>,
}

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Held by whoever has the kernel connect or disconnect.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    seen: Mutex<Seen>,
}

/// How a connection was seen the last time.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) state: NvmeState,
    /// What people were told of it.
    pub(super) told: NvmeState,
    /// Why it is not there.
    pub(super) reason: Option<String>,
    /// What its disks are asked for by.
    pub(super) disks: Vec<String>,
    /// Since when it is not there.
    pub(super) away_since: Option<Instant>,
    /// When it is tried next, and how long is waited after that.
    next: Option<Instant>,
    pause: Duration,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            state: NvmeState::Connecting,
            told: NvmeState::Live,
            reason: None,
            disks: Vec::new(),
            away_since: None,
            next: None,
            pause: FIRST_PAUSE,
        }
    }
}

impl Seen {
    /// It is there.
    pub(super) fn live(&mut self, disks: Vec<String>) {
        *self = Self {
            state: NvmeState::Live,
            told: self.told,
            disks,
            ..Self::default()
        };
    }

    /// It is not.
    pub(super) fn away(&mut self, state: NvmeState) {
        self.state = state;
        self.away_since.get_or_insert_with(Instant::now);
    }

    /// Whether it is time for a try.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// A try begins at `now`; the next one is later than this one was after the one before.
    pub(super) fn tried(&mut self, now: Instant) {
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

impl Link {
    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut lock(&self.seen));
    }
}

/// What was made of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Applied {
    /// Others can use it: which partition it is, and of which disk, by the kernel's count of them.
    Active(std::path::PathBuf, String),
    /// They cannot; why not.
    Failed(String),
}

impl Core {
    /// The name by which targets allow this host.
    pub(crate) fn nvme_nqn(&self) -> String {
        self.nvme.host.nqn().to_string()
    }
}

impl Nvme {
    pub(crate) fn new(host: HostIdentity) -> Self {
        Self {
            host,
            connections: Mutex::default(),
            exports: Mutex::default(),
            exporting: Arc::default(),
        }
    }

    /// What is known of a connection, from now on if nothing was.
    pub(super) fn link(&self, id: Uuid) -> Arc<Link> {
        lock(&self.connections).entry(id).or_default().clone()
    }

    pub(super) fn forget_link(&self, id: Uuid) {
        lock(&self.connections).remove(&id);
    }

    pub(super) fn applied(&self, id: Uuid) -> Option<Applied> {
        lock(&self.exports).get(&id).cloned()
    }

    /// What was known before is returned.
    pub(super) fn set_applied(&self, id: Uuid, applied: Applied) -> Option<Applied> {
        lock(&self.exports).insert(id, applied)
    }

    pub(super) fn forget_export(&self, id: Uuid) {
        forget(&self.exports, &id);
    }
}

fn forget<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>, key: &K) {
    lock(map).remove(key);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let mut seen = Seen::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(seen.is_due(now));
            let begun = now;
            seen.tried(begun);
            while !seen.is_due(now) {
                now += Duration::from_secs(1);
            }
            pauses.push((now - begun).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        seen.live(Vec::new());
        assert!(seen.is_due(now) && seen.away_since.is_none());
    }
}
