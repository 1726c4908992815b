//! Who asks, and under which condition.

use lodge_api::Name;
use lodge_api::privilege::Role;
use uuid::Uuid;

/// Who asks for a change: for events, operations and the audit log.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub user: Name,
    /// The role in force: the weaker of the user's and the credential's.
    pub role: Role,
    /// Where from, as text: an IP address, or `local`.
    pub address: String,
}

/// Whose credential a request carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: Name,
    /// The role in force: the weaker of the user's and the credential's.
    pub role: Role,
    /// The credential itself.
    pub credential: Credential,
}

/// Kinds of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A session, by the key of its record (the hash of its token).
    Session(String),
    /// A token, by its id.
    Token(Uuid),
    /// The local console's read-only token.
    Local,
}

impl Identity {
    /// The caller a request with this identity from `address` makes.
    pub fn caller(&self, address: impl Into<String>) -> Caller {
        Caller {
            user: self.user.clone(),
            role: self.role,
            address: address.into(),
        }
    }
}

/// The `If-Match` condition of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMatch {
    /// No condition, or `*`.
    Any,
    /// Only if the object has this revision.
    Revision(u64),
}

impl Caller {
    /// The manager itself.
    pub(crate) fn manager() -> Self {
        Self {
            user: "lodge".parse().expect("a valid name"),
            role: Role::Administrator,
            address: "local".to_owned(),
        }
    }

    /// Records a change in the audit log.
    pub(crate) fn audit(&self, action: &str, object: &str) {
        tracing::info!(
            target: "audit",
            user = %self.user, from = %self.address, action, object,
            "{} from {}: {action} {object}", self.user, self.address
        );
    }
}
