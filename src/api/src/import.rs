//! Machines of other hypervisors.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Name;
use crate::vm::{Vm, default_network};

/// Query parameters of `POST /v1/vms:import`, whose body is an OVA (`application/octet-stream`), streamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VmImport {
    /// Unique name of the guest; its disks are named after it.
    pub name: Name,
    /// Network that its interfaces are attached to; `default` unless said otherwise.
    #[serde(default = "default_network")]
    #[param(required = false)]
    pub network: Name,
    /// Where its disks are to be; `default` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Name>,
    /// SHA-256 of the archive in hexadecimal; a mismatch leaves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Body of `POST /v1/vms:fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmFetch {
    /// Where the OVA is, `https` or `http`.
    pub url: String,
    /// Unique name of the guest; its disks are named after it.
    pub name: Name,
    /// Network that its interfaces are attached to.
    #[serde(default = "default_network")]
    pub network: Name,
    /// Where its disks are to be; `default` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Name>,
    /// SHA-256 of the archive in hexadecimal; a mismatch leaves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A guest that was made of an OVA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmImported {
    /// The guest; it is stopped.
    pub vm: Vm,
    /// What of the machine was not taken over, or is different here.
    pub warnings: Vec<String>,
}
