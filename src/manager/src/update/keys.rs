//! Who may sign updates of this host.

use std::collections::BTreeSet;

use lodge_api::Problem;
use lodge_api::event::Change;
use lodge_host::install::UpdateKey;
use lodge_store::{Batch, Precondition, Record, Snapshot};
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, HOST};
use crate::core::Core;
use crate::{Caller, Manager};

/// Most keys.
const MOST: usize = 16;

/// The only key of the table.
pub(crate) const KEY: &str = "keys";

/// The keys, as text.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct UpdateKeysRecord(pub(crate) Vec<String>);

impl Record for UpdateKeysRecord {
    const TABLE: &'static str = "update_keys";
    const SCHEMA: u32 = 1;
}

/// The keys that this host trusts, as text.
pub(crate) fn trusted(snapshot: &Snapshot) -> Vec<String> {
    let found = snapshot.get::<UpdateKeysRecord>(KEY);
    let found = found.inspect_err(|error| tracing::error!(%error, "the keys for updates"));
    found
        .ok()
        .flatten()
        .map(|found| found.value.0)
        .unwrap_or_default()
}

/// Refuses what is no list of keys.
pub(crate) fn check(keys: &[String]) -> Result<(), Problem> {
    if keys.len() > MOST {
        let detail = format!("{} keys; at most {MOST} are kept", keys.len());
        return Err(Problem::invalid("/update_keys", detail));
    }
    let mut seen = BTreeSet::new();
    for (at, key) in keys.iter().enumerate() {
        let pointer = format!("/update_keys/{at}");
        key.parse::<UpdateKey>()
            .map_err(|problem| Problem::invalid(&pointer, problem))?;
        if !seen.insert(key) {
            return Err(Problem::invalid(&pointer, "the key is there twice"));
        }
    }
    Ok(())
}

impl Core {
    /// The keys that this host trusts.
    pub(super) fn update_keys(&self) -> Vec<UpdateKey> {
        let keys = trusted(&self.snapshot());
        keys.iter().filter_map(|key| key.parse().ok()).collect()
    }
}

impl Manager {
    /// Trusts these keys, which were checked, instead of those before.
    pub(crate) async fn trust(&self, caller: &Caller, keys: Vec<String>) -> Result<(), Problem> {
        let core = &self.core;
        let _changing = core.catalogue.lock().await;
        let mut batch = Batch::new();
        batch
            .put(KEY, &UpdateKeysRecord(keys), Precondition::Any)
            .map_err(|error| catalogue::record_problem(&error))?;
        core.commit(batch).await?;
        core.make_known(caller, "system_change", HOST.to_owned(), Change::Changed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_one_by_one() {
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned();
        assert!(check(std::slice::from_ref(&key)).is_ok());
        let wrong = |keys: &[String]| check(keys).unwrap_err().pointer;
        let second = wrong(&[key.clone(), "RWQ".to_owned()]);
        assert_eq!(second.as_deref(), Some("/update_keys/1"));
        assert!(wrong(&[key.clone(), key.clone()]).is_some());
        assert!(wrong(&vec![key; MOST + 1]).is_some());
    }
}
