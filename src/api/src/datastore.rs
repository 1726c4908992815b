//! Datastores: where disks are.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::system::StorageHealth;
use crate::{Name, Size};

/// Name of the datastore that every host has.
pub const DEFAULT: &str = "default";

/// TCP port of NFS servers.
pub const NFS_PORT: u16 = 2049;

/// A filesystem with disks, and with what snapshots have of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Datastore {
    /// Stable identity, also the UUID of the filesystem on a disk.
    pub id: Uuid,
    /// Unique name; `default` always exists.
    pub name: Name,
    /// What it is on.
    pub kind: DatastoreKind,
    /// Serial number of its disk; the kernel name of one that has no serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Its directory of an NFS server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<Nfs>,
    /// The device it is on at present, or the server's address with the path there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether copies within it, such as snapshots, are instant and take no room.
    pub shares_extents: bool,
    /// Capacity; 0 while it is missing.
    pub size: Size,
    /// Free.
    pub free: Size,
    /// What its disks would take if they were full. More than `size` is possible: disks take what is written.
    pub provisioned: Size,
    /// Disks on it.
    pub disks: u32,
    /// Whether it works.
    pub health: StorageHealth,
    /// What is wrong with it, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was made known to this host.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// What a datastore is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatastoreKind {
    /// The data storage of the host, which holds its configuration and all images, too.
    System,
    /// XFS on a whole disk of the host.
    Disk,
    /// A directory of an ordinary Linux host.
    Directory,
    /// A directory of an NFS server.
    Nfs,
}

/// A directory of an NFS server, which speaks NFS version 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nfs {
    /// Name or address of the server.
    pub server: String,
    /// Absolute path there, as the server exports it.
    pub path: String,
    /// TCP port of the server.
    #[serde(default = "nfs_port")]
    pub port: u16,
}

fn nfs_port() -> u16 {
    NFS_PORT
}

impl DatastoreKind {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Disk => "disk",
            Self::Directory => "directory",
            Self::Nfs => "nfs",
        }
    }
}

/// Body of `POST /v1/datastores`: `disk`, `nfs` or `directory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatastoreCreate {
    /// Unique name.
    pub name: Name,
    /// Serial number of the disk, all of which it will take; the kernel name of a disk that has no serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Path of an empty directory, where Lodge runs on an ordinary Linux host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Directory of an NFS server. One of a datastore of another host is taken over with `adopt` only, and only when that does not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<Nfs>,
    /// Erase what is on the disk. Without it only a blank disk is taken.
    #[serde(default)]
    pub erase: bool,
    /// Take over the datastore that is there already, of another host or of this one before it was installed anew. Its disks get made-up names.
    #[serde(default)]
    pub adopt: bool,
}

/// Body of `PATCH /v1/datastores/{datastore}`. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatastorePatch {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}
