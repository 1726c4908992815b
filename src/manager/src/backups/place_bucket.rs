//! Backups in a bucket: the folder and the file are the last two parts of a key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lodge_api::backup_catalog::FILE;
use lodge_api::{ErrorCode, Problem};
use lodge_block::FileName;
use lodge_s3::{Bucket, S3Error};

use super::place::{Incoming, Pieces};

/// The bucket, and what all keys begin with.
#[derive(Clone)]
pub(super) struct InBucket {
    bucket: Bucket,
    /// Empty, or with a slash at its end.
    prefix: String,
}

impl InBucket {
    pub(super) fn new(bucket: Bucket, prefix: Option<&str>) -> Self {
        Self {
            bucket,
            prefix: prefix.map_or_else(String::new, |prefix| format!("{prefix}/")),
        }
    }

    /// The same, of which nothing is asked twice.
    pub(super) fn impatient(&self) -> Self {
        Self {
            bucket: self.bucket.impatient(),
            prefix: self.prefix.clone(),
        }
    }

    fn folder_key(&self, folder: &FileName) -> String {
        format!("{}{folder}/", self.prefix)
    }

    fn key(&self, folder: &FileName, file: &FileName) -> String {
        format!("{}{folder}/{file}", self.prefix)
    }

    pub(super) async fn folders(&self) -> Result<Vec<String>, Problem> {
        let listed = self.bucket.list(&self.prefix).await;
        let listed = listed.map_err(|error| problem(&error))?;
        let mut names = BTreeSet::new();
        for object in &listed {
            let parts = object.key.strip_prefix(&self.prefix);
            if let Some((folder, FILE)) = parts.and_then(|parts| parts.split_once('/')) {
                names.insert(folder.to_owned());
            }
        }
        Ok(names.into_iter().collect())
    }

    pub(super) async fn read(
        &self,
        folder: &FileName,
        file: &FileName,
        most: usize,
    ) -> Result<Option<Vec<u8>>, Problem> {
        let read = self.bucket.get(&self.key(folder, file), most).await;
        read.map_err(|error| problem(&error))
    }

    pub(super) async fn write(
        &self,
        folder: &FileName,
        file: &FileName,
        content: Vec<u8>,
    ) -> Result<(), Problem> {
        let content = Bytes::from(content);
        let written = self.bucket.put(&self.key(folder, file), content).await;
        written.map_err(|error| problem(&error))
    }

    pub(super) async fn store(
        &self,
        folder: &FileName,
        file: &FileName,
        most: u64,
        mut pieces: Pieces,
    ) -> Result<(), Problem> {
        let key = self.key(folder, file);
        let stored = self.bucket.upload(&key, most, &mut pieces).await;
        stored.map(drop).map_err(|error| problem(&error))
    }

    pub(super) async fn open(
        &self,
        folder: &FileName,
        file: &FileName,
    ) -> Result<Option<Incoming>, Problem> {
        let opened = self.bucket.read(&self.key(folder, file)).await;
        let opened = opened.map_err(|error| problem(&error))?;
        Ok(opened.map(|object| Incoming {
            length: object.length,
            pieces: object.pieces,
        }))
    }

    pub(super) async fn remove(&self, folder: &FileName, file: &FileName) -> Result<(), Problem> {
        let removed = self.bucket.delete(&self.key(folder, file)).await;
        removed.map_err(|error| problem(&error))
    }

    pub(super) async fn files(&self, folder: &FileName) -> Result<BTreeMap<String, u64>, Problem> {
        let prefix = self.folder_key(folder);
        let listed = self.bucket.list(&prefix).await;
        let listed = listed.map_err(|error| problem(&error))?.into_iter();
        let name = |key: &str| Some(key.strip_prefix(&prefix)?.to_owned());
        Ok(listed
            .filter_map(|object| Some((name(&object.key)?, object.size)))
            .collect())
    }

    pub(super) async fn sweep(&self, folder: &FileName) -> Result<(), Problem> {
        let swept = self.bucket.abort_uploads(&self.folder_key(folder)).await;
        swept.map_err(|error| problem(&error))
    }
}

/// What it means to the caller.
fn problem(error: &S3Error) -> Problem {
    let problem = Problem::new(
        ErrorCode::FetchFailed,
        format!("the backup target: {error}"),
    );
    let (pointer, hint) = match error {
        S3Error::Unreachable(_) => (
            "/endpoint",
            "see whether the URL is right and the service reachable; of one with a certificate of your own authority, trust that first: `lodge system authority add`",
        ),
        S3Error::Refused { code, status, .. } => match code.as_str() {
            "InvalidAccessKeyId" => ("/access_key", "the service knows no key of that id"),
            "SignatureDoesNotMatch" => (
                "/secret_key",
                "the secret key is not the one of that access key",
            ),
            "NoSuchBucket" => ("/bucket", "make the bucket first; Lodge does not"),
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "InvalidRegionName" => {
                ("/region", "give the region that the bucket is in")
            }
            "RequestTimeTooSkewed" => (
                "/endpoint",
                "the clocks of the host and of the service differ; set them by NTP",
            ),
            "AccessDenied" => (
                "/access_key",
                "allow the key to list the bucket, and to read, write and delete objects in it",
            ),
            _ if *status == 403 => ("/access_key", "the service does not let this key in"),
            _ => return problem,
        },
        S3Error::Protocol(_) => ("/endpoint", "is it an S3 service?"),
        S3Error::Content(_) => return problem,
    };
    problem.with_pointer(pointer).with_hint(hint)
}
