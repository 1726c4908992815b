//! Certificate authorities that a host trusts beside the public ones, when it fetches content.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Name;

/// An authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// Unique name.
    pub name: Name,
    /// SHA-256 fingerprint of its certificate.
    pub fingerprint: String,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Body of `POST /v1/authorities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityCreate {
    /// Unique name.
    pub name: Name,
    /// Its certificate, as PEM, at most 16 KiB.
    pub certificate: String,
}
