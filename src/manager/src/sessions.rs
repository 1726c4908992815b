//! Logging in, and whose credential a request carries.
//!
//! A credential is 256 random bits; only its SHA-256 is kept. That it is looked up by its hash is no
//! leak: an attacker does not know what he would have to hash.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use lodge_api::auth::{LoginRequest, Session};
use lodge_api::privilege::Role;
use lodge_api::{ErrorCode, Problem};
use lodge_store::{Batch, Precondition, Record, Snapshot, Versioned};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::catalogue;
use crate::core::Core;
use crate::password;
use crate::throttle::Throttle;
use crate::tokens::TokenRecord;
use crate::users::{Initial, UserRecord, weaker};
use crate::{Credential, Identity, Manager};

/// A session ends after that long without use.
const IDLE: SignedDuration = SignedDuration::from_hours(12);

/// The use of a session is written down at most that often.
const NOTE_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// Most sessions of one user; the one unused for longest makes room.
const MOST: usize = 64;

/// A session as stored, by the hash of its token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) user_id: Uuid,
    created_at: Timestamp,
    used_at: Timestamp,
    address: String,
}

impl Record for SessionRecord {
    const TABLE: &'static str = "sessions";
    const SCHEMA: u32 = 1;
}

/// Credentials in memory.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Mutex<Table>,
    throttle: Mutex<Throttle>,
    local: String,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<String, SessionState>,
    tokens: HashMap<String, Uuid>,
}

#[derive(Debug)]
struct SessionState {
    user_id: Uuid,
    used_at: Timestamp,
    noted_at: Timestamp,
}

impl SessionState {
    fn expired(&self, now: Timestamp) -> bool {
        now.duration_since(self.used_at) > IDLE
    }
}

/// A new secret with a prefix that tells what it is, and its hash.
pub(crate) fn new_secret(prefix: &str) -> Result<(String, String), Problem> {
    let secret = format!("{prefix}_{}", hex(&password::random_bytes::<32>()?));
    let hash = hash(&secret);
    Ok((secret, hash))
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Sessions {
    pub(crate) fn new(snapshot: &Snapshot) -> Result<Self, Problem> {
        let sessions = Self {
            table: Mutex::default(),
            throttle: Mutex::default(),
            local: new_secret("ll")?.0,
        };
        sessions.load(snapshot);
        Ok(sessions)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is stored; what is not stored any more is not valid any more.
    pub(crate) fn load(&self, snapshot: &Snapshot) {
        let mut table = self.table();
        let mut sessions = HashMap::new();
        for (key, session) in snapshot.list::<SessionRecord>() {
            let session = session.value;
            let used = table.sessions.get(&key).map(|known| known.used_at);
            let state = SessionState {
                user_id: session.user_id,
                used_at: used.map_or(session.used_at, |used| used.max(session.used_at)),
                noted_at: session.used_at,
            };
            sessions.insert(key, state);
        }
        table.sessions = sessions;
        table.tokens = snapshot
            .list::<TokenRecord>()
            .into_iter()
            .map(|(_, token)| (token.value.hash, token.value.id))
            .collect();
    }

    /// The user of a session, whose use is noted.
    fn use_session(&self, key: &str, now: Timestamp) -> Option<Uuid> {
        let mut table = self.table();
        let session = table.sessions.get_mut(key)?;
        if session.expired(now) {
            return None;
        }
        session.used_at = session.used_at.max(now);
        Some(session.user_id)
    }

    fn token(&self, key: &str) -> Option<Uuid> {
        self.table().tokens.get(key).copied()
    }

    /// Sessions whose use must be written down, and those that have ended.
    fn to_note(&self, now: Timestamp) -> (Vec<(String, Timestamp)>, Vec<String>) {
        let mut table = self.table();
        let (mut used, mut ended) = (Vec::new(), Vec::new());
        for (key, session) in &mut table.sessions {
            if session.expired(now) {
                ended.push(key.clone());
            } else if session.used_at.duration_since(session.noted_at) >= NOTE_EVERY {
                session.noted_at = session.used_at;
                used.push((key.clone(), session.used_at));
            }
        }
        (used, ended)
    }
}

impl Core {
    /// Writes down the use of sessions, and removes those that have ended.
    pub(crate) async fn note_sessions(&self) {
        let (used, ended) = self.sessions.to_note(Timestamp::now());
        if used.is_empty() && ended.is_empty() {
            return;
        }
        let snapshot = self.snapshot();
        let mut batch = Batch::new();
        for (key, used_at) in used {
            if let Ok(Some(session)) = snapshot.get::<SessionRecord>(&key) {
                let record = SessionRecord {
                    used_at,
                    ..session.value
                };
                let unchanged = Precondition::Revision(session.revision);
                // The keys are hashes and the records small: both always fit.
                let _ = batch.put(key, &record, unchanged);
            }
        }
        for key in ended {
            let _ = batch.delete::<SessionRecord>(key, Precondition::Any);
        }
        match self.commit(batch).await {
            Ok(_) => self.sessions.load(&self.snapshot()),
            // A session ended meanwhile: next time.
            Err(error) => tracing::debug!(%error, "the use of sessions was not written down"),
        }
    }

    fn user(&self, id: Uuid) -> Option<UserRecord> {
        let user = self.snapshot().get::<UserRecord>(&id.to_string()).ok()??;
        (!user.value.disabled).then_some(user.value)
    }
}

fn refused() -> Problem {
    Problem::new(ErrorCode::Unauthorized, "wrong user or password")
}

impl Manager {
    /// Checks a password and opens a session.
    ///
    /// # Errors
    /// `Unauthorized`, the same for an unknown user, a disabled user and a wrong password;
    /// `TooManyRequests` when the throttle holds, with the seconds to wait in `retry_after_s`.
    pub async fn login(&self, login: LoginRequest, peer: IpAddr) -> Result<Session, Problem> {
        let core = &self.core;
        core.require_up()?;
        self.take_a_try(&login.user, peer)?;
        let user = catalogue::find_optional::<UserRecord>(&core.snapshot(), &login.user)?
            // Ids are no user names.
            .filter(|user| user.value.name.as_str() == login.user && !user.value.disabled);
        let hash = user.as_ref().map(|user| user.value.password_hash.clone());
        // Nobody has a longer password; do not hash it.
        let too_long = login.password.len() > lodge_api::auth::MAX_PASSWORD;
        let text = if too_long {
            String::new()
        } else {
            login.password
        };
        let right = password::verify(text, hash).await? && !too_long;
        let Some(user) = user.filter(|_| right) else {
            core.logins_refused.fetch_add(1, Ordering::Relaxed);
            let shown = catalogue::shown(&login.user);
            tracing::warn!(target: "audit", from = %peer, "login refused: user \"{shown}\" from {peer}");
            return Err(refused());
        };
        core.sessions.throttle().succeeded(&login.user, peer);
        self.finish_anyway(move |manager| async move { manager.open_session(user, peer).await })
            .await
    }

    fn take_a_try(&self, user: &str, peer: IpAddr) -> Result<(), Problem> {
        let now = Instant::now();
        let mut throttle = self.core.sessions.throttle();
        if let Some(wait) = throttle.check(user, peer, now) {
            drop(throttle);
            self.core.logins_refused.fetch_add(1, Ordering::Relaxed);
            let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
            return Err(
                Problem::new(ErrorCode::TooManyRequests, "too many wrong passwords")
                    .with_hint(format!("try again in {seconds} seconds"))
                    .with_retry_after(seconds),
            );
        }
        throttle.failed(user, peer, now);
        Ok(())
    }

    async fn open_session(
        &self,
        user: Versioned<UserRecord>,
        peer: IpAddr,
    ) -> Result<Session, Problem> {
        let core = &self.core;
        let (token, key) = new_secret("ls")?;
        let now = Timestamp::now();
        let record = SessionRecord {
            user_id: user.value.id,
            created_at: now,
            used_at: now,
            address: peer.to_string(),
        };
        let failed = |error| catalogue::record_problem(&error);
        let mut batch = Batch::new();
        // Whoever is to make room has to get in.
        batch.may_use_reserve();
        // A user whose password was changed meanwhile must not get in with the old one.
        batch
            .require::<UserRecord>(
                user.value.id.to_string(),
                Precondition::Revision(user.revision),
            )
            .map_err(failed)?;
        batch
            .put(key, &record, Precondition::Absent)
            .map_err(failed)?;
        if let Some(oldest) = oldest_session(&core.snapshot(), user.value.id) {
            batch
                .delete::<SessionRecord>(oldest, Precondition::Any)
                .map_err(failed)?;
        }
        core.commit(batch).await?;
        core.sessions.load(&core.snapshot());
        if user.value.initial == Initial::Unused {
            core.initial_was_used(&user).await;
        }
        let name = user.value.name;
        tracing::info!(target: "audit", user = %name, from = %peer, "{name} logged in from {peer}");
        Ok(Session {
            token,
            user: name,
            role: user.value.role,
            expires_at: now + IDLE,
        })
    }

    /// Whose credential this is: a session's, a token's or the local console's. Extends a session.
    pub fn authenticate(&self, bearer: &str) -> Option<Identity> {
        let core = &self.core;
        if bearer
            .as_bytes()
            .ct_eq(core.sessions.local.as_bytes())
            .into()
        {
            return Some(Identity {
                user: "console".parse().ok()?,
                role: Role::Viewer,
                credential: Credential::Local,
            });
        }
        // Ours are 67 characters long: do not hash megabytes.
        if bearer.len() > 128 {
            return None;
        }
        let (key, now) = (hash(bearer), Timestamp::now());
        if let Some(id) = core.sessions.use_session(&key, now) {
            let user = core.user(id)?;
            return Some(Identity {
                user: user.name,
                role: user.role,
                credential: Credential::Session(key),
            });
        }
        let id = core.sessions.token(&key)?;
        let token = core
            .snapshot()
            .get::<TokenRecord>(&id.to_string())
            .ok()??
            .value;
        if token.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        let user = core.user(token.user_id)?;
        Some(Identity {
            role: weaker(user.role, token.role),
            user: user.name,
            credential: Credential::Token(id),
        })
    }

    /// Ends the session a request was made with; a token is left as it is.
    pub async fn logout(&self, identity: &Identity) -> Result<(), Problem> {
        let Credential::Session(key) = &identity.credential else {
            return Err(Problem::new(
                ErrorCode::WrongState,
                "this request was not made with a session",
            )
            .with_hint("delete a token by DELETE /v1/tokens/{token}"));
        };
        let mut batch = Batch::new();
        batch
            .delete::<SessionRecord>(key.clone(), Precondition::Any)
            .map_err(|error| catalogue::record_problem(&error))?;
        let user = identity.user.clone();
        self.finish_anyway(move |manager| async move {
            manager.core.commit(batch).await?;
            manager.core.sessions.load(&manager.core.snapshot());
            tracing::info!(target: "audit", %user, "{user} logged out");
            Ok(())
        })
        .await
    }

    /// The local console's token: role `viewer`, valid until the manager ends.
    pub fn local_token(&self) -> &str {
        &self.core.sessions.local
    }
}

/// The session of a user that has to make room for another, if there are too many.
fn oldest_session(snapshot: &Snapshot, user: Uuid) -> Option<String> {
    let mut own: Vec<_> = snapshot
        .list::<SessionRecord>()
        .into_iter()
        .filter(|(_, session)| session.value.user_id == user)
        .collect();
    if own.len() < MOST {
        return None;
    }
    own.sort_by_key(|(_, session)| session.value.used_at);
    own.into_iter().next().map(|(key, _)| key)
}
