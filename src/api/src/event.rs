//! Events: one ordered stream of what happens on a host.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Name;
use crate::operation::Operation;
use crate::vm::{VmDiskError, VmState, Watchdog};

/// One event. Sent as one text frame each over the WebSocket `GET /v1/events`;
/// without an upgrade the same path answers with a page of past events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Position in the stream: grows by one. Restarts at 1 with `epoch`.
    pub sequence: u64,
    /// Identity of the stream: changes when the host (not the manager) restarts.
    pub epoch: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Who caused it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventBody {
    /// An object was created, changed or deleted.
    Object {
        /// Which, as a path: `/v1/vms/web-1`.
        target: String,
        /// What became of it.
        change: Change,
    },
    /// A guest changed its state.
    VmState {
        /// The guest.
        vm: Name,
        /// Its new state.
        state: VmState,
        /// Why, where it was not asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The guest was reset and boots again.
    VmReset {
        /// The guest.
        vm: Name,
    },
    /// The guest's system said that it has crashed. The guest stays as it is: it may be writing a dump, or reset itself soon.
    VmPanicked {
        /// The guest.
        vm: Name,
        /// Whether its crash kernel takes over.
        crash_kernel: bool,
    },
    /// The guest's monitor tried a system call that its jail forbids. It was not made, and the guest has ended: it crashed, and is not started again
    /// by itself. Either it had taken its monitor over, or the monitor has a defect.
    VmJailViolation {
        /// The guest.
        vm: Name,
        /// Name of the system call (section 2 of the manual of Linux).
        system_call: String,
    },
    /// The guest's watchdog expired: its system hangs. What is done about it follows.
    VmWatchdog {
        /// The guest.
        vm: Name,
        /// What is done: not `none`.
        action: Watchdog,
    },
    /// The host could not carry out what the guest asked of a disk. The guest is paused, and goes on where it was when it is resumed.
    VmDiskError {
        /// The guest.
        vm: Name,
        /// What is wrong with which disk.
        error: VmDiskError,
    },
    /// An operation started, progressed or ended.
    Operation {
        /// Its present state.
        operation: Box<Operation>,
    },
    /// Something about the host: a link lost, the data disk filling.
    System {
        /// For a person.
        message: String,
    },
    /// The listener was too slow or asked for events no longer kept; it must read anew
    /// what it shows. Events between were lost.
    Gap {
        /// First sequence number lost.
        from: u64,
        /// Last sequence number lost.
        to: u64,
    },
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It exists now.
    Created,
    /// It differs now.
    Changed,
    /// It is gone.
    Deleted,
}

/// Query parameters of `GET /v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// Start after this sequence number (0: everything kept). Absent: only what is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The stream `since` belongs to; when it is another one, everything kept is sent after a `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Only these types, separated by commas: `object,vm_state,vm_reset,vm_panicked,vm_jail_violation,vm_watchdog,vm_disk_error,operation,system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<String>,
}
