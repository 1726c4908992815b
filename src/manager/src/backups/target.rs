//! Backup targets as stored, and how they are reached.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use lodge_api::Name;
use lodge_api::Problem;
use lodge_api::backup::{BackupTarget, BackupTargetKind};
use lodge_api::{ErrorCode, Size};
use lodge_block::FileName;
use lodge_block::datastore::Datastore;
use lodge_s3::sign::Credentials;
use lodge_s3::{Bucket, Settings, SettingsError};
use lodge_store::{Record, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::place::Place;
use super::place_bucket::InBucket;
use super::place_directory::{InDirectory, folder_in};
use super::record;
use crate::authorities::AuthorityRecord;
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking, internal};
use crate::datastores::{self, DatastoreRecord};

/// The folder on a datastore.
const FOLDER: &str = "backups";

/// A backup target as stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TargetRecord {
    pub(super) id: Uuid,
    pub(super) name: Name,
    pub(super) at: At,
    pub(super) created_at: Timestamp,
}

/// Where it is. Not to be printed: it may have a key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum At {
    Datastore {
        id: Uuid,
    },
    Directory {
        path: PathBuf,
    },
    S3 {
        endpoint: String,
        region: String,
        bucket: String,
        prefix: Option<String>,
        access_key: String,
        secret_key: String,
    },
}

impl Record for TargetRecord {
    const TABLE: &'static str = "backup_targets";
    const SCHEMA: u32 = 1;
}

impl Object for TargetRecord {
    const KIND: &'static str = "backup target";
    const PATH: &'static str = "backup-targets";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

impl TargetRecord {
    /// Whether it is on that datastore.
    pub(crate) fn is_on(&self, datastore: Uuid) -> bool {
        matches!(self.at, At::Datastore { id } if id == datastore)
    }
}

impl Core {
    /// Reaches a target.
    ///
    /// # Errors
    /// `WrongState` for one on a datastore that is missing.
    pub(super) async fn place(&self, target: &TargetRecord) -> Result<Place, Problem> {
        match &target.at {
            At::Datastore { id } => {
                let datastore =
                    catalogue::find::<DatastoreRecord>(&self.snapshot(), &id.to_string())?;
                let on = self.datastores.folders(datastore.value.key())?;
                blocking(move || own_folder(&on.root)).await
            }
            At::Directory { path } => {
                let path = path.clone();
                blocking(move || {
                    let directory = Datastore::open(&path).map_err(|error| {
                        let detail = format!("the backup target: {error}");
                        Problem::new(ErrorCode::WrongState, detail).with_pointer("/directory")
                    })?;
                    Ok(Place::Directory(InDirectory::new(Arc::new(directory))))
                })
                .await
            }
            At::S3 { prefix, .. } => {
                let bucket = self.bucket(&target.at)?;
                Ok(Place::Bucket(InBucket::new(bucket, prefix.as_deref())))
            }
        }
    }

    fn bucket(&self, at: &At) -> Result<Bucket, Problem> {
        let At::S3 {
            endpoint,
            region,
            bucket,
            access_key,
            secret_key,
            ..
        } = at
        else {
            return Err(internal("the target is no bucket"));
        };
        let settings = Settings {
            endpoint: endpoint.clone(),
            region: region.clone(),
            bucket: bucket.clone(),
            credentials: Credentials {
                access_key: access_key.clone(),
                secret_key: secret_key.clone(),
            },
        };
        let authorities = catalogue::list::<AuthorityRecord>(&self.snapshot()).into_iter();
        let authorities: Vec<_> = authorities.map(|one| one.value.certificate).collect();
        // The appliance has no such service of its own, and others there trust whoever reaches them.
        let anywhere = !self.config.appliance;
        Bucket::new(settings, &authorities, anywhere).map_err(|error| {
            let pointer = match &error {
                SettingsError::Endpoint(_) => "/endpoint",
                SettingsError::Region => "/region",
                SettingsError::Bucket => "/bucket",
                SettingsError::AccessKey => "/access_key",
                SettingsError::SecretKey => "/secret_key",
            };
            Problem::invalid(pointer, error.to_string())
        })
    }

    /// What the API shows of a target.
    pub(super) fn target_of(
        &self,
        record: &Versioned<TargetRecord>,
    ) -> Result<BackupTarget, Problem> {
        let target = &record.value;
        let snapshot = self.snapshot();
        let backups = record::all(&snapshot).into_iter();
        let on_it: Vec<u64> = backups
            .filter(|backup| backup.value.target == target.id)
            .map(|backup| backup.value.size)
            .collect();
        let mut view = BackupTarget {
            id: target.id,
            name: target.name.clone(),
            kind: BackupTargetKind::Directory,
            datastore: None,
            directory: None,
            endpoint: None,
            region: None,
            bucket: None,
            prefix: None,
            access_key: None,
            backups: u32::try_from(on_it.len()).unwrap_or(u32::MAX),
            size: Size(on_it.iter().fold(0, |sum, size| sum.saturating_add(*size))),
            created_at: target.created_at,
            revision: record.revision,
        };
        match target.at.clone() {
            At::Datastore { id } => {
                let datastore = catalogue::find::<DatastoreRecord>(&snapshot, &id.to_string())?;
                view.datastore = Some(datastores::name_of(&snapshot, datastore.value.key())?);
            }
            At::Directory { path } => view.directory = Some(path.display().to_string()),
            At::S3 {
                endpoint,
                region,
                bucket,
                prefix,
                access_key,
                secret_key: _,
            } => {
                view.kind = BackupTargetKind::S3;
                view.endpoint = Some(endpoint);
                view.region = Some(region);
                view.bucket = Some(bucket);
                view.prefix = prefix;
                view.access_key = Some(access_key);
            }
        }
        Ok(view)
    }
}

/// The folder for backups on a datastore, which is made if it is not there.
fn own_folder(root: &Datastore) -> Result<Place, Problem> {
    let name = FileName::new(FOLDER).map_err(|error| internal(error.to_string()))?;
    let folder = folder_in(root, &name)?;
    Ok(Place::Directory(InDirectory::new(Arc::new(folder))))
}
