//! Snapshots of guests: what they were at one moment, to go back to or to start others from.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::vm::VmSpec;
use crate::{Name, Size};

/// A guest at one moment: its configuration and disks, and its memory if it ran. It depends on nothing: guest, disks and
/// other snapshots may be deleted in any order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Stable identity.
    pub id: Uuid,
    /// Unique name.
    pub name: Name,
    /// Free text.
    pub description: String,
    /// The guest's name at that moment.
    pub vm: Name,
    /// The guest's id.
    pub vm_id: Uuid,
    /// Whether the guest's schedule had it taken: it is deleted when there are enough newer ones.
    #[serde(default)]
    pub scheduled: bool,
    /// Whether memory and processors are part of it: guests go on from there instead of booting.
    pub memory: bool,
    /// What the guest was made of.
    pub spec: VmSpec,
    /// What it occupies. Extents that it shares with disks count as well.
    pub allocated: Size,
    /// When it was taken.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// Body of `POST /v1/vms/{vm}:snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// Unique name.
    pub name: Name,
    /// Free text, at most 1024 characters.
    #[serde(default)]
    pub description: String,
    /// Save memory and processors too; a guest that runs is held meanwhile. Unless said otherwise: if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// Body of `POST /v1/vms/{vm}:revert`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmRevert {
    /// A snapshot of this guest, by name or id.
    pub snapshot: String,
}

/// Body of `POST /v1/snapshots/{snapshot}:clone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotClone {
    /// Name of the new guest; its disks are called the same, with `-disk0` and so on behind.
    pub name: Name,
    /// Leave the memory aside: the new guest is stopped, and boots from its disks when it is started. Without, a snapshot that has
    /// memory starts the guest at once, where the other was.
    #[serde(default)]
    pub cold: bool,
}
