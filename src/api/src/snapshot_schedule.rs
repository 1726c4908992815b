//! Snapshots that a host takes by itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How often a snapshot of a guest is taken while it runs, and how many of them stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSchedule {
    /// Minutes from one to the next, 5 to 525600 (a year).
    pub every_minutes: u32,
    /// So many of them stay, 1 to 500: whenever one was taken, those beyond are deleted, the oldest first.
    #[serde(default = "default_keep")]
    pub keep: u32,
    /// Save memory and processors too: the guest is held meanwhile, and each of them occupies as much as its memory.
    #[serde(default)]
    pub memory: bool,
}

fn default_keep() -> u32 {
    24
}
