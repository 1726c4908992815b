//! Networks: the host's bridges that guests attach to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Name;

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Stable identity.
    pub id: Uuid,
    /// Unique name; `default` always exists.
    pub name: Name,
    /// Kernel name of the bridge.
    pub bridge: String,
    /// MAC address of the host's NIC behind it; absent: guests on it reach each other only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// The host's own addresses on it, in CIDR notation.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether the uplink has a carrier.
    #[serde(default)]
    pub carrier: bool,
    /// Guests attached by configuration.
    #[serde(default)]
    pub used_by: Vec<Name>,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// Body of `POST /v1/networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Unique name.
    pub name: Name,
    /// MAC address of a NIC no other network uses; absent: isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
}
