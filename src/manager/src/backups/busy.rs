//! Who reads and writes the backups of which guest: several may read, or one may write.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use lodge_api::{ErrorCode, Name, Problem};
use uuid::Uuid;

/// What the parts of the manager that have to do with backups share.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    busy: Arc<Mutex<HashMap<Key, Use>>>,
    /// Why the scheduled backups of guests fail, by the guests' ids.
    failing: Mutex<BTreeMap<Uuid, String>>,
}

/// A target and a guest.
type Key = (Uuid, Uuid);

#[derive(Debug, Clone, Copy)]
enum Use {
    Reading(u32),
    Writing,
}

/// The right to read or write, for as long as this lives.
#[derive(Debug)]
pub(super) struct Busy {
    busy: Arc<Mutex<HashMap<Key, Use>>>,
    key: Key,
}

impl Backups {
    /// Nobody else reads or writes the backups of that guest on that target.
    pub(super) fn writing(&self, target: Uuid, vm: Uuid) -> Result<Busy, Problem> {
        self.enter((target, vm), |now| match now {
            None => Some(Use::Writing),
            Some(_) => None,
        })
    }

    /// Nobody writes them.
    pub(super) fn reading(&self, target: Uuid, vm: Uuid) -> Result<Busy, Problem> {
        self.enter((target, vm), |now| match now {
            None => Some(Use::Reading(1)),
            Some(Use::Reading(count)) => Some(Use::Reading(count + 1)),
            Some(Use::Writing) => None,
        })
    }

    fn enter(
        &self,
        key: Key,
        next: impl FnOnce(Option<Use>) -> Option<Use>,
    ) -> Result<Busy, Problem> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next(busy.get(&key).copied()).ok_or_else(|| {
            let detail = "the guest's backups on this target are being read or written";
            Problem::new(ErrorCode::InUse, detail)
                .with_hint("wait for the end of it; `lodge operation list` shows it")
        })?;
        busy.insert(key, next);
        Ok(Busy {
            busy: self.busy.clone(),
            key,
        })
    }

    /// Whether anybody reads or writes on a target.
    pub(super) fn is_used(&self, target: Uuid) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.keys().any(|(used, _)| *used == target)
    }

    /// Notes how the scheduled backups of a guest are.
    pub(super) fn note(&self, vm: Uuid, failing: Option<(&Name, &Problem)>) {
        let mut all = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match failing {
            None => all.remove(&vm),
            Some((name, problem)) => {
                let text = format!("The scheduled backup of guest {name} fails: {problem}.");
                all.insert(vm, text)
            }
        };
    }

    /// Forgets what is known of guests that have no schedule any more.
    pub(super) fn keep_notes(&self, wanted: impl Fn(Uuid) -> bool) {
        let mut all = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|vm, _| wanted(*vm));
    }

    /// What people should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let all = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match busy.get(&self.key).copied() {
            Some(Use::Reading(count)) if count > 1 => {
                busy.insert(self.key, Use::Reading(count - 1));
            }
            _ => {
                busy.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_read_or_one_writes() {
        let backups = Backups::default();
        let [target, vm, other] = [1, 2, 3].map(Uuid::from_u128);
        let reading = backups.reading(target, vm).unwrap();
        let more = backups.reading(target, vm).unwrap();
        assert!(backups.writing(target, vm).is_err());
        assert!(backups.writing(target, other).is_ok());
        drop(reading);
        assert!(backups.writing(target, vm).is_err() && backups.is_used(target));
        drop(more);
        assert!(!backups.is_used(target));
        let writing = backups.writing(target, vm).unwrap();
        assert!(backups.reading(target, vm).is_err());
        assert!(backups.writing(target, vm).is_err());
        drop(writing);
        assert!(backups.reading(target, vm).is_ok());
    }
}
