//! Disks and network interfaces that come and go while a guest runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Name;
use crate::vm::{VmDisk, VmNic};

/// Body of `POST /v1/vms/{vm}:attach`: one disk or one network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmAttach {
    /// A disk; on `virtio` if the guest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<VmDisk>,
    /// A network interface; of model `virtio` if the guest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<VmNic>,
}

/// Body of `POST /v1/vms/{vm}:detach`: one disk or one network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDetach {
    /// Name of a disk. It stays, with all data on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Name>,
    /// MAC address of a network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    /// Seconds in which a running guest is to let the device go, 1 to 3600 (default 30).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Take it out of a running guest at once, as if it was pulled. What the guest had not written yet is lost.
    #[serde(default)]
    pub force: bool,
}
