//! Users of a configuration.

use std::collections::{HashMap, HashSet};

use lodge_api::configuration::ConfigurationKind;
use lodge_api::privilege::Role;
use lodge_api::{ErrorCode, Problem};
use lodge_store::{Precondition, Versioned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::file::Item;
use super::plan::{Here, Planner, Shown};
use crate::sessions::SessionRecord;
use crate::users::{Initial, UserRecord};
use crate::{catalogue, password};

impl Shown for UserRecord {
    const SHOWN_AS: ConfigurationKind = ConfigurationKind::User;

    const SECRETS: &'static [&'static str] = &["/password"];

    fn shown(&self) -> Value {
        json!({"role": self.role, "disabled": self.disabled, "password": self.password_hash})
    }
}

/// Users as they become, by their ids in the configuration.
pub(super) type Users = HashMap<Uuid, UserRecord>;

impl Planner<'_> {
    pub(super) fn users(&mut self, items: &[Item<UserRecord>]) -> Result<Users, Problem> {
        let here = Here::<UserRecord>::of(&self.snapshot);
        let mut users = Users::new();
        let mut logged_out = HashSet::new();
        for item in items {
            password::check_hash(&item.value.password_hash)
                .map_err(|problem| item.invalid("/password_hash", problem))?;
            let (old, id) = here.place(&item.value);
            let new = become_of(&item.value, old, id);
            if self.put(item, old, &new)?
                && let Some(old) = old
            {
                let other_password = old.value.password_hash != new.password_hash;
                if other_password || new.disabled {
                    logged_out.insert(id);
                }
                if old.value.initial != Initial::No && new.initial == Initial::No {
                    self.plan.initial_password_ends = true;
                }
                if other_password && new.name == self.user {
                    self.plan.warnings.push(format!(
                        "your password as \"{}\" becomes that of the configuration, and your sessions end",
                        new.name
                    ));
                }
            }
            users.insert(item.value.id, new);
        }
        let kept = here.others(items).map(|user| &user.value);
        require_administrator(users.values().chain(kept))?;
        self.keep(&here, items);
        self.end_sessions(&logged_out)?;
        Ok(users)
    }

    /// As a change of the password does.
    fn end_sessions(&mut self, users: &HashSet<Uuid>) -> Result<(), Problem> {
        if users.is_empty() {
            return Ok(());
        }
        for (key, session) in self.snapshot.list::<SessionRecord>() {
            if users.contains(&session.value.user_id) {
                self.plan
                    .batch
                    .delete::<SessionRecord>(key, Precondition::Any)
                    .map_err(|error| catalogue::record_problem(&error))?;
            }
        }
        Ok(())
    }
}

/// A user of the configuration, in the place of one that may be here.
fn become_of(user: &UserRecord, old: Option<&Versioned<UserRecord>>, id: Uuid) -> UserRecord {
    let mut new = UserRecord {
        id,
        initial: Initial::No,
        ..user.clone()
    };
    let Some(old) = old.map(|old| &old.value) else {
        return new;
    };
    new.created_at = old.created_at;
    // A random password that was never used is one that nobody knows.
    if user.initial == Initial::Unused {
        new.password_hash.clone_from(&old.password_hash);
    }
    if new.password_hash == old.password_hash {
        new.initial = old.initial;
    }
    new
}

fn require_administrator<'a>(
    mut users: impl Iterator<Item = &'a UserRecord>,
) -> Result<(), Problem> {
    if users.any(|user| user.role == Role::Administrator && !user.disabled) {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::WrongState,
        "no administrator who can log in would be left",
    )
    .with_pointer("/configuration/records")
    .with_hint("make one on this host that the configuration does not have"))
}
