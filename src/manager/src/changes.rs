//! What every change of an object begins and ends with.

use lodge_api::Problem;
use lodge_api::event::Change;
use lodge_store::{Batch, Snapshot, Versioned};
use tokio::sync::MutexGuard;

use crate::catalogue::{self, Object};
use crate::core::Core;
use crate::{Caller, IfMatch};

/// An object that is to change. Nothing else of the configuration changes while it is held, so that
/// what is checked stays true until the change is durable.
pub(crate) struct Held<'a, O> {
    pub(crate) snapshot: Snapshot,
    pub(crate) old: Versioned<O>,
    _changing: MutexGuard<'a, ()>,
}

impl Core {
    /// Finds the object of that name or id, at the revision the caller knows.
    pub(crate) async fn hold<O: Object>(
        &self,
        key: &str,
        if_match: IfMatch,
    ) -> Result<Held<'_, O>, Problem> {
        let changing = self.catalogue.lock().await;
        let snapshot = self.snapshot();
        let old = catalogue::find::<O>(&snapshot, key)?;
        catalogue::check_match(old.revision, if_match)?;
        Ok(Held {
            snapshot,
            old,
            _changing: changing,
        })
    }

    /// Makes a new object durable.
    pub(crate) async fn add<O: Object + Clone>(&self, object: &O) -> Result<Versioned<O>, Problem> {
        let mut batch = Batch::new();
        catalogue::insert(&mut batch, object)?;
        Ok(Versioned {
            revision: self.commit(batch).await?,
            value: object.clone(),
        })
    }

    /// Makes a changed object durable, with what else is in the batch.
    pub(crate) async fn exchange<O: Object>(
        &self,
        mut batch: Batch,
        old: &Versioned<O>,
        new: O,
    ) -> Result<Versioned<O>, Problem> {
        catalogue::replace(&mut batch, old, &new)?;
        Ok(Versioned {
            revision: self.commit(batch).await?,
            value: new,
        })
    }

    /// Tells of a change that is durable: in the audit log and as an event.
    pub(crate) fn make_known(&self, caller: &Caller, action: &str, target: String, change: Change) {
        caller.audit(action, &target);
        self.events.object(&caller.user, target, change);
    }
}
