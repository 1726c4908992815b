//! Users.

use jiff::Timestamp;
use lodge_api::auth::{User, UserCreate, UserPatch};
use lodge_api::event::Change;
use lodge_api::page::{ListParams, Page};
use lodge_api::privilege::Role;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Precondition, Record, Snapshot, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::filter::Field;
use crate::sessions::SessionRecord;
use crate::tokens::TokenRecord;
use crate::{Caller, IfMatch, Manager, password};

const USER_FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("role", "/role"),
    ("disabled", "/disabled"),
];

/// A user as stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    pub(crate) role: Role,
    pub(crate) disabled: bool,
    pub(crate) created_at: Timestamp,
    /// PHC string.
    pub(crate) password_hash: String,
    /// Whether the password is the random one of the first boot, and if so, whether anybody has used it.
    #[serde(default)]
    pub(crate) initial: Initial,
}

/// State of a password that was made up at the first boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Initial {
    /// Chosen by a person.
    #[default]
    No,
    /// Made up, and never used: nobody may know it, so the next boot makes up another.
    Unused,
    /// Made up, and somebody has logged in with it.
    Used,
}

impl Record for UserRecord {
    const TABLE: &'static str = "users";
    const SCHEMA: u32 = 1;
}

impl Object for UserRecord {
    const KIND: &'static str = "user";
    const PATH: &'static str = "users";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

fn user_view(record: &Versioned<UserRecord>) -> User {
    let user = &record.value;
    User {
        id: user.id,
        name: user.name.clone(),
        role: user.role,
        disabled: user.disabled,
        created_at: user.created_at,
        revision: record.revision,
    }
}

/// The weaker of two roles.
pub(crate) fn weaker(a: Role, b: Role) -> Role {
    match (a, b) {
        (Role::Viewer, _) | (_, Role::Viewer) => Role::Viewer,
        (Role::Operator, _) | (_, Role::Operator) => Role::Operator,
        (Role::Administrator, Role::Administrator) => Role::Administrator,
    }
}

/// Refuses to leave nobody who can administrate.
fn require_administrator(snapshot: &Snapshot, without: Uuid) -> Result<(), Problem> {
    let another = snapshot.list::<UserRecord>().into_iter().any(|(_, user)| {
        let user = user.value;
        user.id != without && user.role == Role::Administrator && !user.disabled
    });
    if another {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::WrongState,
        "this is the last administrator who can log in",
    )
    .with_hint("make another administrator first"))
}

/// Ends sessions and, where wanted, tokens of a user.
fn end_credentials(
    batch: &mut Batch,
    snapshot: &Snapshot,
    user: Uuid,
    tokens: bool,
) -> Result<(), Problem> {
    let failed = |error| catalogue::record_problem(&error);
    for (key, session) in snapshot.list::<SessionRecord>() {
        if session.value.user_id == user {
            batch
                .delete::<SessionRecord>(key, Precondition::Any)
                .map_err(failed)?;
        }
    }
    for (key, token) in snapshot.list::<TokenRecord>() {
        if tokens && token.value.user_id == user {
            batch
                .delete::<TokenRecord>(key, Precondition::Any)
                .map_err(failed)?;
        }
    }
    Ok(())
}

pub(crate) fn forbidden(detail: &str) -> Problem {
    Problem::new(ErrorCode::Forbidden, detail)
}

impl Manager {
    /// By name. Filter fields: `id name role disabled`.
    pub fn user_list(&self, params: &ListParams) -> Result<Page<User>, Problem> {
        let snapshot = self.core.snapshot();
        catalogue::page(&snapshot, params, USER_FIELDS, user_view, |user| &user.name)
    }

    /// One user, by name or id.
    pub fn user_view(&self, key: &str) -> Result<User, Problem> {
        Ok(user_view(&catalogue::find(&self.core.snapshot(), key)?))
    }

    /// Makes a user.
    pub async fn user_create(&self, caller: &Caller, create: UserCreate) -> Result<User, Problem> {
        password::check(&create.password)?;
        catalogue::require_free::<UserRecord>(&self.core.snapshot(), &create.name)?;
        let password_hash = password::hash(create.password).await?;
        let record = UserRecord {
            id: Uuid::now_v7(),
            name: create.name,
            role: create.role,
            disabled: false,
            created_at: Timestamp::now(),
            password_hash,
            initial: Initial::No,
        };
        let caller = caller.clone();
        self.to_the_end(|manager| async move {
            let core = &manager.core;
            let made = core.add(&record).await?;
            core.make_known(&caller, "user_create", record.target(), Change::Created);
            Ok(user_view(&made))
        })
        .await
    }

    /// Changes a user. A caller whose role is not `administrator` may change its own password only
    /// (the server lets such a request through with `SelfManage`).
    pub async fn user_patch(
        &self,
        caller: &Caller,
        key: &str,
        patch: UserPatch,
        if_match: IfMatch,
    ) -> Result<User, Problem> {
        let found = catalogue::find::<UserRecord>(&self.core.snapshot(), key);
        if caller.role != Role::Administrator {
            let own = found
                .as_ref()
                .is_ok_and(|user| user.value.name == caller.user);
            if !own {
                return Err(forbidden("only an administrator may change other users"));
            }
            if patch.role.is_some() || patch.disabled.is_some() {
                return Err(forbidden(
                    "only an administrator may change roles and disable users",
                ));
            }
        }
        let id = found?.value.id.to_string();
        let password_hash = match patch.password {
            None => None,
            Some(text) => {
                password::check(&text)?;
                Some(password::hash(text).await?)
            }
        };
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<UserRecord>(&id, if_match).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            let mut new = old.value.clone();
            new.role = patch.role.unwrap_or(new.role);
            new.disabled = patch.disabled.unwrap_or(new.disabled);
            if new.disabled || new.role != Role::Administrator {
                require_administrator(snapshot, new.id)?;
            }
            let mut batch = Batch::new();
            if let Some(hash) = &password_hash {
                new.password_hash.clone_from(hash);
                new.initial = Initial::No;
            }
            if password_hash.is_some() || new.disabled {
                end_credentials(&mut batch, snapshot, new.id, false)?;
            }
            let new = core.exchange(batch, old, new).await?;
            core.sessions.load(&core.snapshot());
            if old.value.initial != Initial::No && new.value.initial == Initial::No {
                core.initial_password.forget();
                core.console_changed();
            }
            core.make_known(&caller, "user_change", new.value.target(), Change::Changed);
            Ok(user_view(&new))
        })
        .await
    }

    /// Deletes a user with its sessions and tokens; never the last enabled administrator.
    pub async fn user_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<UserRecord>(&key, if_match).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            require_administrator(snapshot, old.value.id)?;
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, old)?;
            end_credentials(&mut batch, snapshot, old.value.id, true)?;
            core.commit(batch).await?;
            core.sessions.load(&core.snapshot());
            if old.value.initial != Initial::No {
                core.initial_password.forget();
                core.console_changed();
            }
            core.make_known(&caller, "user_delete", old.value.target(), Change::Deleted);
            Ok(())
        })
        .await
    }
}
