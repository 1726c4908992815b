//! Operations: anything that may take longer than a second.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{Name, Problem};

/// A task the host carries out, or has carried out; kept for a day, at most 1000.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Identity.
    pub id: Uuid,
    /// What it does, as noun and verb: `vm_start`, `disk_create`.
    pub kind: String,
    /// What it acts on, as a path: `/v1/vms/web-1`.
    pub target: String,
    /// Who asked for it.
    pub user: Name,
    /// Where it stands.
    pub status: OperationStatus,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it did, line by line; at most 100 lines.
    #[serde(default)]
    pub log: Vec<String>,
    /// Whether `DELETE` can cancel it now.
    pub may_cancel: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// Under way.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly; `error` says why. Also what a crash of the manager interrupted.
    Failed,
    /// Cancelled by a user; nothing was changed, or it was undone.
    Cancelled,
}

impl OperationStatus {
    /// Whether it has ended.
    pub fn is_final(self) -> bool {
        self != Self::Running
    }

    /// The word used in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// What is being done now.
    pub phase: String,
    /// Units done (bytes, usually).
    pub done: u64,
    /// Units in all; 0: unknown.
    pub total: u64,
}

/// Query parameters of every `POST` that starts an operation, and of `GET /v1/operations/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitParams {
    /// Wait at most that long for the end before answering: `30s`, `2m`, at most `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9]{1,6}(ms|s|m)$")]
    pub wait: Option<String>,
}
