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
    /// Length of the content: of a disk, what a guest would see.
    pub size: Size,
    /// SHA-256 of what was uploaded, in lower-case hexadecimal.
    pub sha256: String,
    /// What was found in it, e.g. `bzImage 6.12.95, LZ4`.
    pub format: String,
    /// What was uploaded, where that was no raw disk image but was made into one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ImageOrigin>,
    /// When it was uploaded.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// A file of a foreign format that a raw disk image was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageOrigin {
    /// What it was, e.g. `qcow2 v3, zstd`.
    pub format: String,
    /// Length of the file.
    pub size: Size,
}

/// What an image is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageKind {
    /// A kernel for direct boot: bzImage, or ELF `vmlinux`, plain or compressed.
    Kernel,
    /// An initial RAM disk.
    Initrd,
    /// A disk image, from which disks are made. It is kept as a raw one, whatever its format was.
    Disk,
    /// The image of a CD or DVD (ISO 9660 or UDF), for CD-ROM drives.
    Iso,
}

/// How a file makes a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// Its bytes are those of the disk.
    Raw,
    /// QEMU's, versions 2 and 3, compressed or not.
    Qcow2,
    /// VMware's in one file: monolithicSparse or streamOptimized.
    Vmdk,
    /// Microsoft's first, fixed or dynamic.
    Vhd,
    /// Microsoft's second, fixed or dynamic.
    Vhdx,
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
    /// Format of a disk image. Without, it is detected; a raw image that looks like another has to be declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// SHA-256 of the content in hexadecimal; a mismatch stores nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Body of `POST /v1/images:fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFetch {
    /// Where the content is, `https` or `http`.
    pub url: String,
    /// Unique name.
    pub name: Name,
    /// What it is; checked against the content.
    pub kind: ImageKind,
    /// Format of a disk image. Without, it is detected; a raw image that looks like another has to be declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// SHA-256 of the content in hexadecimal; a mismatch stores nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a disk is sent as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// As it is, holes as zeroes.
    #[default]
    Raw,
    /// QEMU's version 3, not compressed. What is not allocated is not sent.
    Qcow2,
    /// VMware's streamOptimized, compressed.
    Vmdk,
}

/// Query parameters of `GET /v1/snapshots/{snapshot}/disks/{disk}/content`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SavedDiskParams {
    /// What it is sent as; without, `qcow2` if `since` is given, else `raw`.
    #[serde(default)]
    pub format: Option<ExportFormat>,
    /// An earlier snapshot that has the same disk, by name or id: only what is another since then is sent, as a qcow2 that is to be read
    /// upon an image of that one.
    #[serde(default)]
    pub since: Option<String>,
    /// With `since`: name of the file that image is in, beside this one, which this one is to name as its backing file. It is taken for a qcow2 if
    /// its name ends so, else for a raw image. Without, none is named, and `qemu-img rebase -u` can do that.
    #[serde(default)]
    pub backing: Option<String>,
}

/// Query parameters of `GET /v1/disks/{disk}/content` and `GET /v1/images/{image}/content`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportParams {
    /// What it is sent as; `raw` unless said otherwise. Only disks and disk images can be something else.
    #[serde(default)]
    #[param(required = false)]
    pub format: ExportFormat,
}
