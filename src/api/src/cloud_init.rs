//! What a guest's cloud-init is given.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a guest's system is told at its first start, if it has cloud-init or the like: by a disc of the NoCloud kind, labelled `CIDATA`, in a CD-ROM
/// drive of its own behind all others. All of it together has at most 8 KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCloudInit {
    /// The system's host name; absent: the guest's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Who may log in as the system's default user: lines as in `authorized_keys`, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// User data: a `#cloud-config`, a script that begins with `#!`, an `#include` of addresses, or MIME parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The same by whoever offers the image; user data count more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<String>,
    /// How its network is set up, in YAML, version 1 or 2; absent: DHCP on the first network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<String>,
}

/// The files on the disc that a guest would find when it was started now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloudInitFiles {
    /// By this cloud-init knows whether it has done its work already: it does it again after a change of what it is given, and in a clone.
    pub instance_id: String,
    /// `meta-data`.
    pub meta_data: String,
    /// `user-data`.
    pub user_data: String,
    /// `vendor-data`, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<String>,
    /// `network-config`, where there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<String>,
}
