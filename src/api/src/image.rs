//! Images: immutable files guests start from.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{Name, Size};

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Stable identity.
    pub id: Uuid,
    /// Unique name.
    pub name: Name,
    /// What it is.
    pub kind: ImageKind,
    /// Length of the content.
    pub size: Size,
    /// SHA-256 of the content, in lower-case hexadecimal.
    pub sha256: String,
    /// What was found in it, e.g. `bzImage 6.12.95, LZ4`.
    pub format: String,
    /// When it was uploaded.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// What an image is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageKind {
    /// A kernel for direct boot: bzImage, or ELF `vmlinux`, plain or compressed.
    Kernel,
    /// An initial RAM disk.
    Initrd,
    /// A raw disk image, from which disks are made.
    Disk,
    /// The image of a CD or DVD (ISO 9660 or UDF), for CD-ROM drives.
    Iso,
}

/// Query parameters of `POST /v1/images`, whose body is the content
/// (`application/octet-stream`), streamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImageUpload {
    /// Unique name.
    pub name: Name,
    /// What it is; checked against the content.
    pub kind: ImageKind,
    /// SHA-256 of the content in hexadecimal; a mismatch stores nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}
