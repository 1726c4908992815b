//! Users and their tokens.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use lodge_api::auth::{Token, TokenCreate, TokenCreated, User, UserCreate, UserPatch};
use lodge_api::event::Change;
use lodge_api::page::{ListParams, Page};
use lodge_api::privilege::Role;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::boot::BootReport;
use lodge_host::seed::AdminSecret;
use lodge_store::{Batch, Precondition, Record, Snapshot, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::core::{Core, internal};
use crate::filter::{self, Field};
use crate::sessions::{SessionRecord, new_secret};
use crate::{Caller, IfMatch, Manager, password};

/// Name of the first administrator.
const ADMIN: &str = "admin";

/// Most tokens of one user.
const MAX_TOKENS: usize = 100;

const USER_FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("role", "/role"),
    ("disabled", "/disabled"),
];

const TOKEN_FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("user", "/user"),
    ("role", "/role"),
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

/// A token as stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    pub(crate) user_id: Uuid,
    pub(crate) role: Role,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    /// SHA-256 of the secret, in hexadecimal.
    pub(crate) hash: String,
}

impl Record for TokenRecord {
    const TABLE: &'static str = "tokens";
    const SCHEMA: u32 = 1;
}

/// The weaker of two roles.
pub(crate) fn weaker(a: Role, b: Role) -> Role {
    match (a, b) {
        (Role::Viewer, _) | (_, Role::Viewer) => Role::Viewer,
        (Role::Operator, _) | (_, Role::Operator) => Role::Operator,
        (Role::Administrator, Role::Administrator) => Role::Administrator,
    }
}

/// The random administrator's password of the first boot, while it is in force: in memory, and in a
/// file of the run directory for a restarted manager.
#[derive(Debug)]
pub(crate) struct InitialPassword {
    path: PathBuf,
    text: Mutex<Option<String>>,
}

impl InitialPassword {
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self {
            path: run_dir.join("initial-password"),
            text: Mutex::new(None),
        }
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, text: Option<String>) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn read_back(&self) -> bool {
        let text = fs::read_to_string(&self.path).ok();
        let found = text.is_some();
        self.set(text);
        found
    }

    fn keep(&self, text: String) -> std::io::Result<()> {
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(text.as_bytes())?;
        self.set(Some(text));
        Ok(())
    }

    fn forget(&self) {
        // That it is not there is what is wanted.
        let _ = fs::remove_file(&self.path);
        self.set(None);
    }
}

impl Core {
    /// Makes the first administrator, and a new random password where nobody has seen the last one.
    pub(crate) async fn prepare_administrator(&self) -> Result<(), Problem> {
        let snapshot = self.snapshot();
        if snapshot.count::<UserRecord>() == 0 {
            return self.make_administrator().await;
        }
        let unused = snapshot
            .list::<UserRecord>()
            .into_iter()
            .find(|(_, user)| user.value.initial != Initial::No);
        let Some((_, user)) = unused else {
            self.initial_password.forget();
            return Ok(());
        };
        if self.initial_password.read_back() || user.value.initial == Initial::Used {
            return Ok(());
        }
        let mut changed = user.value.clone();
        let text = password::random()?;
        changed.password_hash = password::hash(text.clone()).await?;
        let mut batch = Batch::new();
        catalogue::replace(&mut batch, &user, &changed)?;
        self.commit(batch).await?;
        self.show_initial(text)
    }

    async fn make_administrator(&self) -> Result<(), Problem> {
        let secret = seed_secret(self.boot.as_ref());
        let (password_hash, random) = match secret {
            Some(AdminSecret::PasswordHash(hash)) if password::is_hash(&hash) => (hash, None),
            Some(AdminSecret::Password(text)) => (password::hash(text).await?, None),
            other => {
                if other.is_some() {
                    tracing::warn!(
                        "the seed's password hash is not an argon2id hash; a random password is used"
                    );
                }
                let text = password::random()?;
                (password::hash(text.clone()).await?, Some(text))
            }
        };
        let record = UserRecord {
            id: Uuid::now_v7(),
            name: ADMIN
                .parse()
                .map_err(|_| internal("the administrator's name"))?,
            role: Role::Administrator,
            disabled: false,
            created_at: Timestamp::now(),
            password_hash,
            initial: if random.is_some() {
                Initial::Unused
            } else {
                Initial::No
            },
        };
        let mut batch = Batch::new();
        catalogue::insert(&mut batch, &record)?;
        self.commit(batch).await?;
        tracing::info!("created the administrator \"{ADMIN}\"");
        random.map_or(Ok(()), |text| self.show_initial(text))
    }

    fn show_initial(&self, text: String) -> Result<(), Problem> {
        self.initial_password
            .keep(text)
            .map_err(|error| internal(format!("the initial password cannot be kept: {error}")))
    }

    /// Notes that somebody knows the random password.
    pub(crate) async fn initial_was_used(&self, user: &Versioned<UserRecord>) {
        let mut changed = user.value.clone();
        changed.initial = Initial::Used;
        let mut batch = Batch::new();
        let result = match catalogue::replace(&mut batch, user, &changed) {
            Ok(()) => self.commit(batch).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the use of the initial password could not be noted");
        }
    }
}

fn seed_secret(boot: Option<&BootReport>) -> Option<AdminSecret> {
    let admin = boot?.seed.as_ref()?.seed.admin.as_ref()?;
    Some(admin.secret.clone())
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

fn forbidden(detail: &str) -> Problem {
    Problem::new(ErrorCode::Forbidden, detail)
}

impl Manager {
    /// By name. Filter fields: `id name role disabled`.
    pub fn user_list(&self, params: &ListParams) -> Result<Page<User>, Problem> {
        let users = catalogue::list::<UserRecord>(&self.core.snapshot());
        let users = users.iter().map(user_view).collect();
        filter::page(users, params, USER_FIELDS, |user: &User| {
            user.name.to_string()
        })
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
            let mut batch = Batch::new();
            catalogue::insert(&mut batch, &record)?;
            let revision = core.commit(batch).await?;
            caller.audit("user_create", &record.target());
            core.events
                .object(&caller.user, record.target(), Change::Created);
            Ok(user_view(&Versioned {
                value: record,
                revision,
            }))
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
            let _changing = core.catalogue.lock().await;
            let snapshot = core.snapshot();
            let old = catalogue::find::<UserRecord>(&snapshot, &id)?;
            catalogue::check_match(old.revision, if_match)?;
            let mut new = old.value.clone();
            new.role = patch.role.unwrap_or(new.role);
            new.disabled = patch.disabled.unwrap_or(new.disabled);
            if new.disabled || new.role != Role::Administrator {
                require_administrator(&snapshot, new.id)?;
            }
            let mut batch = Batch::new();
            if let Some(hash) = &password_hash {
                new.password_hash.clone_from(hash);
                new.initial = Initial::No;
            }
            if password_hash.is_some() || new.disabled {
                end_credentials(&mut batch, &snapshot, new.id, false)?;
            }
            catalogue::replace(&mut batch, &old, &new)?;
            let revision = core.commit(batch).await?;
            core.sessions.load(&core.snapshot());
            if old.value.initial != Initial::No && new.initial == Initial::No {
                core.initial_password.forget();
                core.console_changed();
            }
            caller.audit("user_change", &new.target());
            core.events
                .object(&caller.user, new.target(), Change::Changed);
            Ok(user_view(&Versioned {
                value: new,
                revision,
            }))
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
            let _changing = core.catalogue.lock().await;
            let snapshot = core.snapshot();
            let old = catalogue::find::<UserRecord>(&snapshot, &key)?;
            catalogue::check_match(old.revision, if_match)?;
            require_administrator(&snapshot, old.value.id)?;
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, &old)?;
            end_credentials(&mut batch, &snapshot, old.value.id, true)?;
            core.commit(batch).await?;
            core.sessions.load(&core.snapshot());
            if old.value.initial != Initial::No {
                core.initial_password.forget();
                core.console_changed();
            }
            caller.audit("user_delete", &old.value.target());
            core.events
                .object(&caller.user, old.value.target(), Change::Deleted);
            Ok(())
        })
        .await
    }

    /// The caller's tokens; everybody's for an administrator. Filter fields: `id name user role`.
    pub fn token_list(&self, caller: &Caller, params: &ListParams) -> Result<Page<Token>, Problem> {
        let mut tokens = token_views(&self.core.snapshot());
        if caller.role != Role::Administrator {
            tokens.retain(|token| token.user == caller.user);
        }
        let key = |token: &Token| format!("{}/{}", token.user, token.name);
        tokens.sort_by_key(key);
        filter::page(tokens, params, TOKEN_FIELDS, key)
    }

    /// Makes a token of the caller.
    pub async fn token_create(
        &self,
        caller: &Caller,
        create: TokenCreate,
    ) -> Result<TokenCreated, Problem> {
        let role = create.role.unwrap_or(caller.role);
        if weaker(role, caller.role) != role {
            return Err(
                forbidden("a token cannot carry more rights than you have").with_pointer("/role")
            );
        }
        if let Some(days) = create.expires_in_days
            && !(1..=3650).contains(&days)
        {
            return Err(
                Problem::invalid("/expires_in_days", format!("{days} is out of range"))
                    .with_hint("give 1 to 3650 days, or leave it out for a token without end"),
            );
        }
        let caller = caller.clone();
        self.to_the_end(
            move |manager| async move { manager.make_token(&caller, create, role).await },
        )
        .await
    }

    async fn make_token(
        &self,
        caller: &Caller,
        create: TokenCreate,
        role: Role,
    ) -> Result<TokenCreated, Problem> {
        let core = &self.core;
        let _changing = core.catalogue.lock().await;
        let snapshot = core.snapshot();
        let user = catalogue::find::<UserRecord>(&snapshot, caller.user.as_str())?.value;
        let own: Vec<_> = snapshot
            .list::<TokenRecord>()
            .into_iter()
            .filter(|(_, token)| token.value.user_id == user.id)
            .collect();
        if own.iter().any(|(_, token)| token.value.name == create.name) {
            return Err(Problem::new(
                ErrorCode::AlreadyExists,
                format!("you have a token \"{}\" already", create.name),
            )
            .with_pointer("/name")
            .with_hint("choose another name, or delete the other one first"));
        }
        if own.len() >= MAX_TOKENS {
            return Err(Problem::new(
                ErrorCode::InsufficientResources,
                format!("a user may have at most {MAX_TOKENS} tokens"),
            )
            .with_hint("delete tokens that are not used"));
        }
        let (secret, hash) = new_secret("lt")?;
        let now = Timestamp::now();
        let days = create.expires_in_days;
        let record = TokenRecord {
            id: Uuid::now_v7(),
            name: create.name,
            user_id: user.id,
            role,
            created_at: now,
            expires_at: days.map(|days| now + SignedDuration::from_hours(24 * i64::from(days))),
            hash,
        };
        let mut batch = Batch::new();
        batch
            .put(record.id.to_string(), &record, Precondition::Absent)
            .map_err(|error| catalogue::record_problem(&error))?;
        core.commit(batch).await?;
        core.sessions.load(&core.snapshot());
        let target = format!("/v1/tokens/{}", record.id);
        caller.audit("token_create", &target);
        core.events.object(&caller.user, target, Change::Created);
        Ok(TokenCreated {
            token: token_view(record, &user),
            secret,
        })
    }

    /// Deletes a token by id, or by name one of the caller's own. Others' tokens only for an administrator.
    pub async fn token_delete(&self, caller: &Caller, key: &str) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let missing = || Problem::not_found("token", catalogue::shown(&key));
            let found = token_views(&core.snapshot()).into_iter().find(|token| {
                let own = token.user == caller.user;
                (own && token.name.as_str() == key)
                    || (token.id.to_string() == key && (own || caller.role == Role::Administrator))
            });
            let token = found.ok_or_else(missing)?;
            let mut batch = Batch::new();
            batch
                .delete::<TokenRecord>(token.id.to_string(), Precondition::Present)
                .map_err(|error| catalogue::record_problem(&error))?;
            core.commit(batch).await?;
            core.sessions.load(&core.snapshot());
            let target = format!("/v1/tokens/{}", token.id);
            caller.audit("token_delete", &target);
            core.events.object(&caller.user, target, Change::Deleted);
            Ok(())
        })
        .await
    }
}

fn token_views(snapshot: &Snapshot) -> Vec<Token> {
    snapshot
        .list::<TokenRecord>()
        .into_iter()
        .filter_map(|(_, token)| {
            let user = snapshot
                .get::<UserRecord>(&token.value.user_id.to_string())
                .ok()??;
            Some(token_view(token.value, &user.value))
        })
        .collect()
}

fn token_view(record: TokenRecord, user: &UserRecord) -> Token {
    Token {
        id: record.id,
        name: record.name,
        user: user.name.clone(),
        role: record.role,
        created_at: record.created_at,
        expires_at: record.expires_at,
    }
}
