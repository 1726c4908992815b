//! The host's configuration as a whole: to be kept elsewhere, and to be brought to this or another host.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Version of the form that this release writes and reads.
pub const FORMAT: u32 = 1;

/// Longest body of `POST /v1/system/configuration:restore`, in bytes.
pub const MAX_BODY: usize = 8 << 20;

/// Answer to `GET /v1/system/configuration`: all that is needed to set up such a host again, but for the content of images,
/// disks and snapshots.
///
/// It holds hashes of passwords and of tokens' secrets, so it is to be kept as a password is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Version of this form, at present 1.
    pub format: u32,
    /// Version of Lodge that wrote it.
    pub lodge: String,
    /// When it was so.
    #[schema(value_type = String, format = DateTime)]
    pub taken_at: Timestamp,
    /// The host's name.
    pub hostname: String,
    /// The host's Ethernet links, which uplinks of networks are known by.
    pub links: Vec<ConfigurationLink>,
    /// Users, tokens, certificate authorities, keys for updates, networks and guests.
    pub records: Vec<ConfigurationRecord>,
}

/// An Ethernet link of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationLink {
    /// Kernel name.
    pub name: String,
    /// Permanent MAC address.
    pub mac: String,
}

/// A record as the host's store has it.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationRecord {
    /// `users`, `tokens`, `authorities`, `update_keys`, `networks` or `vms`.
    pub table: String,
    /// What it is found by in the table.
    pub key: String,
    /// Version of the form of `value`. Older ones are brought up to date where they are restored.
    pub schema: u32,
    /// The record.
    pub value: Value,
}

impl fmt::Debug for ConfigurationRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigurationRecord")
            .field("table", &self.table)
            .field("key", &self.key)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// Body of `POST /v1/system/configuration:restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationRestore {
    /// What `GET /v1/system/configuration` answered, here or on another host.
    pub configuration: Configuration,
    /// For uplinks of networks: MAC addresses of links of the host that it is from, each with that of the link of this host
    /// which takes its place.
    #[serde(default)]
    #[schema(example = json!({"52:54:00:10:0d:00": "52:54:00:20:0d:00"}))]
    pub macs: BTreeMap<String, String>,
    /// Only say what would become different.
    #[serde(default)]
    pub preview: bool,
}

/// Answer to `POST /v1/system/configuration:restore`: what is different now, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigurationRestored {
    /// Whether nothing was changed.
    pub preview: bool,
    /// Every object of the configuration, and those that are only on this host.
    pub objects: Vec<RestoredObject>,
    /// What does not work yet, or is other than one may expect, for a person.
    pub warnings: Vec<String>,
}

/// An object, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RestoredObject {
    /// What it is.
    pub kind: ConfigurationKind,
    /// Its name; of a token with its user's before it, `admin/ci`.
    pub name: String,
    /// What becomes of it.
    pub outcome: RestoreOutcome,
    /// Of one that is replaced, the fields that become others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}

/// Kinds of objects in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigurationKind {
    /// The host itself: its name.
    Host,
    /// A user.
    User,
    /// A token.
    Token,
    /// A certificate authority.
    Authority,
    /// Who may sign updates.
    UpdateKeys,
    /// A network.
    Network,
    /// A guest.
    Vm,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestoreOutcome {
    /// It was not on this host.
    Added,
    /// It was another on this host.
    Replaced,
    /// It was the same on this host.
    Unchanged,
    /// It is on this host only, and stays.
    Kept,
}

/// A field that becomes another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// JSON pointer into the object.
    pub pointer: String,
    /// What it is on this host; absent: nothing, or it is secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What it becomes; absent: nothing, or it is secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
    /// Whether both are left out because nobody is to see them.
    #[serde(default)]
    pub secret: bool,
}
