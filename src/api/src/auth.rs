//! Users, sessions and tokens.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Name;
use crate::privilege::{Privilege, Role};

/// Shortest password, in characters.
pub const MIN_PASSWORD: usize = 8;

/// Longest password, in bytes; bounds the work of hashing.
pub const MAX_PASSWORD: usize = 256;

/// Body of `POST /v1/sessions`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Name of the user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A logged-in session. It ends by `DELETE /v1/sessions/current`, after 12 hours
/// without use, and with the user or a change of the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Send as `Authorization: Bearer …`. Shown only here. Browsers get it as a cookie as well.
    pub token: String,
    /// Whose session.
    pub user: Name,
    /// The user's role.
    pub role: Role,
    /// When it ends unless it is used.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// Answer to `GET /v1/sessions/current`: who the server takes the caller for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// Whose session or token.
    pub user: Name,
    /// The role that applies.
    pub role: Role,
    /// What the role carries.
    pub privileges: Vec<Privilege>,
}

/// A person or program that may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Stable identity.
    pub id: Uuid,
    /// Unique name.
    pub name: Name,
    /// What the user may do.
    pub role: Role,
    /// Whether logging in and tokens are refused.
    pub disabled: bool,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// Body of `POST /v1/users`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// Unique name.
    pub name: Name,
    /// At least [`MIN_PASSWORD`] characters.
    pub password: String,
    /// What the user may do.
    pub role: Role,
}

/// Body of `PATCH /v1/users/{user}`. What is absent stays.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// A new role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Refuse or allow logging in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// A new password; ends the user's sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A long-lived credential of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Stable identity.
    pub id: Uuid,
    /// What it is for.
    pub name: Name,
    /// Whose rights it carries.
    pub user: Name,
    /// Its own role; the weaker of it and the user's applies.
    pub role: Role,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// What it is for; unique for the user.
    pub name: Name,
    /// Its role; absent: the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Days until it stops working, 1 to 3650; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_days: Option<u32>,
}

/// Answer to `POST /v1/tokens`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// The token's record.
    #[serde(flatten)]
    pub token: Token,
    /// Send as `Authorization: Bearer …`. Shown only here.
    pub secret: String,
}
