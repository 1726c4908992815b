//! Backups that a host writes by itself, and where to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{Name, Size};

/// A place to which backups are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupTarget {
    /// Stable identity.
    pub id: Uuid,
    /// Unique name.
    pub name: Name,
    /// What it is.
    pub kind: BackupTargetKind,
    /// The datastore in whose folder `backups` they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Name>,
    /// Path of the directory they are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// URL of the S3 service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region for which requests are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What the keys of all objects begin with, and a slash after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Id of the key that requests are signed with. The key itself is never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// Backups that are known to be there.
    pub backups: u32,
    /// Bytes of their disks.
    pub size: Size,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision; also the `ETag`.
    pub revision: u64,
}

/// What a backup target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupTargetKind {
    /// A folder, on a datastore or elsewhere.
    Directory,
    /// A bucket of an S3 service.
    S3,
}

impl BackupTargetKind {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::S3 => "s3",
        }
    }
}

/// Body of `POST /v1/backup-targets`. A target of kind `directory` has `datastore`, or `directory`; one of kind `s3` has `endpoint`, `bucket`,
/// `access_key` and `secret_key`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupTargetCreate {
    /// Unique name.
    pub name: Name,
    /// What it is.
    pub kind: BackupTargetKind,
    /// A datastore of the host; backups are in its folder `backups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Name>,
    /// Absolute path of a directory that is there, where Lodge runs on an ordinary Linux host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// URL of the S3 service, without the bucket: `https://s3.example.com`. Buckets are addressed by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region for which requests are signed; absent: `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Bucket, which is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What the keys of all objects begin with, without slashes around it; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Id of the key that requests are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// The key itself. It is kept on the host, and never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret_key: Option<String>,
}

/// Body of `PATCH /v1/backup-targets/{target}`. What is absent stays; all but `name` is for targets of kind `s3`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupTargetPatch {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Another URL of the same service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Another region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Id of another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// Another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub secret_key: Option<String>,
}

/// A backup of a guest on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// Stable identity.
    pub id: Uuid,
    /// The target it is on.
    pub target: Name,
    /// The guest's name when it was made.
    pub vm: Name,
    /// The guest's id.
    pub vm_id: Uuid,
    /// Its folder on the target, as `lodge vm restore` takes it.
    pub folder: String,
    /// Its number there, from 1 on.
    pub number: u32,
    /// When the guest was as it is there.
    #[schema(value_type = String, format = DateTime)]
    pub taken_at: Timestamp,
    /// Bytes of its disks there: of those that others are made of only what changed.
    pub size: Size,
    /// The numbers of the backups that it is made of; none: all is in it.
    pub made_of: Vec<u32>,
    /// When it was last verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub verified_at: Option<Timestamp>,
    /// Whether it was found good then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// What was found then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<String>,
}

/// Query parameters of `GET /v1/backups`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BackupListParams {
    /// Most objects to return, 1 to 1000 (default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next_page` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// Only backups for which this holds, see other lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only those on this target, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only those of this guest, by its name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
}

/// Query parameters of `DELETE /v1/backups/{backup}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BackupDeleteParams {
    /// Delete those that are made of it as well.
    #[serde(default)]
    pub with_later: bool,
    /// Wait at most that long for the end before answering: `30s`, `2m`, at most `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9]{1,6}(ms|s|m)$")]
    pub wait: Option<String>,
}

/// Body of `POST /v1/vms/{vm}:backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmBackup {
    /// The target, by name or id.
    pub target: String,
    /// Write all of the disks, also where what changed since the last backup would do.
    #[serde(default)]
    pub full: bool,
}

/// Body of `POST /v1/backups/{backup}:restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRestore {
    /// Another name: then the guest gets disks and MAC addresses of its own. Absent: the guest that it was, which must be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The datastore for its disks; absent: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Name>,
}

/// Optional body of `POST /v1/backups/{backup}:verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupVerify {
    /// Also boot a guest of it, with all of its links down, until its system shows a sign of life; it is removed afterwards.
    #[serde(default)]
    pub boot: bool,
    /// Seconds that the sign may take, 10 to 3600; absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}

/// Backups that a host makes of a guest by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupSchedule {
    /// Name of the target.
    pub target: Name,
    /// Minutes from one to the next, 5 to 525600 (a year).
    pub every_minutes: u32,
    /// Of so many backups one has all of the disks, and the others what changed; 1 to 100.
    #[serde(default = "default_full_every")]
    pub full_every: u32,
    /// So many of them stay, 1 to 500, with those that they are made of: whenever one was made, those beyond are deleted.
    #[serde(default = "default_keep")]
    pub keep: u32,
}

fn default_full_every() -> u32 {
    7
}

fn default_keep() -> u32 {
    14
}
