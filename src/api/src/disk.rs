//! Disks: raw files guests write to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{Name, Size};

/// A virtual disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Stable identity, also the serial number the guest sees (first 20 hexadecimal digits).
    pub id: Uuid,
    /// Unique name.
    pub name: Name,
    /// What the guest sees; a multiple of 512 bytes.
    pub size: Size,
    /// What it occupies now.
    pub allocated: Size,
    /// Where it is.
    pub datastore: Name,
    /// Guests whose configuration names it.
    pub used_by: Vec<Name>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// Body of `POST /v1/disks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskCreate {
    /// Unique name.
    pub name: Name,
    /// Size: a multiple of 1 MiB, at most 64 TiB; needed without `image`, and at least its size with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Image of kind `disk` to copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Name>,
    /// Where it is to be; `default` if absent. A copy of an image is instant on the datastore `default`, where images are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Name>,
}

/// Body of `POST /v1/disks/{disk}:move`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskMove {
    /// Where it is to be.
    pub datastore: Name,
}

/// Query parameters of `POST /v1/disks/{disk}:apply`, whose body is a qcow2 of what changed (`application/octet-stream`), streamed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiskApply {
    /// SHA-256 of the content in hexadecimal; a mismatch changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Body of `PATCH /v1/disks/{disk}`. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskPatch {
    /// A new name; not while a guest runs with the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// A larger size. Guests that run with the disk are told; not while one has it on SATA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}
