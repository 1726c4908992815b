//! Tokens of a configuration.

use std::collections::{HashMap, HashSet};

use lodge_api::configuration::{ConfigurationKind, RestoreOutcome};
use lodge_api::event::Change;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Precondition, Versioned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::differences::weigh;
use super::file::Item;
use super::plan::Planner;
use super::users::Users;
use crate::catalogue;
use crate::tokens::{MAX_TOKENS, TokenRecord};
use crate::users::UserRecord;

/// What of a token nobody is to see.
const SECRETS: &[&str] = &["/secret"];

fn shown(token: &TokenRecord) -> Value {
    json!({"role": token.role, "expires_at": token.expires_at, "secret": token.hash})
}

/// What tokens there are meanwhile.
struct Tokens {
    /// Those of this host, by user and name.
    here: HashMap<(Uuid, Name), Versioned<TokenRecord>>,
    ids: HashSet<Uuid>,
    /// How many each user will have.
    counts: HashMap<Uuid, usize>,
    /// Hashes of the secrets of all that there will be.
    hashes: HashSet<String>,
}

impl Planner<'_> {
    pub(super) fn tokens(
        &mut self,
        items: &[Item<TokenRecord>],
        users: &Users,
    ) -> Result<(), Problem> {
        let mut places = HashSet::new();
        for item in items {
            let user = owner(item, users)?;
            if !places.insert((user.id, item.value.name.clone())) {
                let detail = format!(
                    "there is a token \"{}\" of this user before it",
                    item.value.name
                );
                return Err(item
                    .invalid("/name", detail)
                    .with_hint("leave one of the two out"));
            }
        }
        let mut tokens = self.tokens_here(&places);
        for item in items {
            self.token(item, owner(item, users)?, &mut tokens)?;
        }
        Ok(())
    }

    /// The tokens of this host, of which those that are in no `places` stay.
    fn tokens_here(&mut self, places: &HashSet<(Uuid, Name)>) -> Tokens {
        let mut tokens = Tokens {
            here: HashMap::new(),
            ids: HashSet::new(),
            counts: HashMap::new(),
            hashes: HashSet::new(),
        };
        for (_, token) in self.snapshot.list::<TokenRecord>() {
            let place = (token.value.user_id, token.value.name.clone());
            tokens.ids.insert(token.value.id);
            if !places.contains(&place) {
                *tokens.counts.entry(token.value.user_id).or_default() += 1;
                tokens.hashes.insert(token.value.hash.clone());
                let user = catalogue::get::<UserRecord>(&self.snapshot, &place.0.to_string());
                if let Ok(Some(user)) = user {
                    let name = format!("{}/{}", user.value.name, place.1);
                    let kind = ConfigurationKind::Token;
                    self.note(kind, name, RestoreOutcome::Kept, Vec::new());
                }
            }
            tokens.here.insert(place, token);
        }
        tokens
    }

    fn token(
        &mut self,
        item: &Item<TokenRecord>,
        user: &UserRecord,
        tokens: &mut Tokens,
    ) -> Result<(), Problem> {
        let token = &item.value;
        check_hash(item)?;
        if !tokens.hashes.insert(token.hash.clone()) {
            return Err(item.invalid("/hash", "another token has the same secret"));
        }
        let count = tokens.counts.entry(user.id).or_default();
        *count += 1;
        if *count > MAX_TOKENS {
            let detail = format!("a user may have at most {MAX_TOKENS} tokens");
            return Err(Problem::new(ErrorCode::InsufficientResources, detail)
                .with_pointer(item.at.clone())
                .with_hint("delete tokens that are not used"));
        }
        let old = tokens.here.get(&(user.id, token.name.clone()));
        let new = TokenRecord {
            id: match old {
                Some(old) => old.value.id,
                None if tokens.ids.contains(&token.id) => Uuid::now_v7(),
                None => token.id,
            },
            user_id: user.id,
            created_at: old.map_or(token.created_at, |old| old.value.created_at),
            ..token.clone()
        };
        self.put_token(item, old, &new, user)
    }

    fn put_token(
        &mut self,
        item: &Item<TokenRecord>,
        old: Option<&Versioned<TokenRecord>>,
        new: &TokenRecord,
        user: &UserRecord,
    ) -> Result<(), Problem> {
        let before = old.map(|old| shown(&old.value));
        let (outcome, changes) = weigh(before.as_ref(), &shown(new), SECRETS);
        let precondition = old.map_or(Precondition::Absent, |old| {
            Precondition::Revision(old.revision)
        });
        let name = format!("{}/{}", user.name, new.name);
        self.note(ConfigurationKind::Token, name, outcome, changes);
        let change = match outcome {
            RestoreOutcome::Added => Change::Created,
            RestoreOutcome::Replaced => Change::Changed,
            RestoreOutcome::Unchanged | RestoreOutcome::Kept => return Ok(()),
        };
        let put = self.plan.batch.put(new.id.to_string(), new, precondition);
        put.map_err(|error| item.blame("", catalogue::record_problem(&error)))?;
        let target = format!("/v1/tokens/{}", new.id);
        self.plan.known.push((target, change));
        Ok(())
    }
}

/// The user of a token, as it becomes.
fn owner<'a>(item: &Item<TokenRecord>, users: &'a Users) -> Result<&'a UserRecord, Problem> {
    users.get(&item.value.user_id).ok_or_else(|| {
        item.invalid("/user_id", "the configuration has no user of this id")
            .with_hint("leave the token out, or add its user")
    })
}

fn check_hash(item: &Item<TokenRecord>) -> Result<(), Problem> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if item.value.hash.len() == 64 && item.value.hash.bytes().all(digit) {
        return Ok(());
    }
    Err(item
        .invalid("/hash", "this is no hash of a secret")
        .with_hint("it has 64 digits of 0-9 and a-f"))
}
