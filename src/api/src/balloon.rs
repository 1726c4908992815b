//! How much of its memory a running guest keeps, and how it sees that memory.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Size;

/// Body of `POST /v1/vms/{vm}:balloon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmBalloonTarget {
    /// Memory the guest should keep: a multiple of 4 KiB, at least [`VmBalloonTarget::LEAST`] (64 MiB)
    /// and at most the memory it was started with.
    pub target: Size,
}

impl VmBalloonTarget {
    /// The least that a guest is asked to make do with.
    pub const LEAST: Size = Size::mib(64);
}

/// Memory of a running guest: what it should keep, and what it keeps. The rest is in its balloon,
/// and the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmBalloon {
    /// Memory the guest should keep: all it was started with, unless it was asked for some.
    pub target: Size,
    /// Memory it keeps, as it says itself.
    pub actual: Size,
}

/// A guest's memory in its own eyes, some seconds old. What the guest does not tell is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmGuestMemory {
    /// Memory the guest's kernel manages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Size>,
    /// Not used for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Size>,
    /// What programs could get without swapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<Size>,
    /// Copies of what is on disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caches: Option<Size>,
    /// Read from swap since the guest booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<Size>,
    /// Written to swap since the guest booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<Size>,
    /// Page faults that waited for a disk, since the guest booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
}
