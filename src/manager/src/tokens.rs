//! Tokens: long-lived credentials of programs.

use jiff::{SignedDuration, Timestamp};
use lodge_api::auth::{Token, TokenCreate, TokenCreated};
use lodge_api::event::Change;
use lodge_api::page::{ListParams, Page};
use lodge_api::privilege::Role;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Precondition, Record, Snapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::filter::{self, Field};
use crate::sessions::new_secret;
use crate::users::{UserRecord, forbidden, weaker};
use crate::{Caller, Manager, catalogue};

/// Most tokens of one user.
pub(crate) const MAX_TOKENS: usize = 100;

const TOKEN_FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("user", "/user"),
    ("role", "/role"),
];

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

impl Manager {
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
        core.make_known(caller, "token_create", target, Change::Created);
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
            core.make_known(&caller, "token_delete", target, Change::Deleted);
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
