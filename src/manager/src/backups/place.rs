//! Where backups are: what a folder of files and a bucket of objects have in common.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use lodge_api::{ErrorCode, Problem};
use lodge_block::FileName;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::place_bucket::InBucket;
use super::place_directory::InDirectory;
use crate::core::internal;

/// Pieces on their way to a file. An empty one is the end: without it the file does not come to be.
pub(super) type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// A file on its way from there.
pub(super) struct Incoming {
    pub(super) length: u64,
    pub(super) pieces: BoxStream<'static, io::Result<Bytes>>,
}

/// Where the backups of a target are.
#[derive(Clone)]
pub(super) enum Place {
    Directory(InDirectory),
    Bucket(InBucket),
}

/// A guest's folder there.
#[derive(Clone)]
pub(super) struct Folder {
    place: Place,
    name: FileName,
}

impl Place {
    /// A folder of it, whether or not it is there.
    pub(super) fn folder(&self, name: &str) -> Result<Folder, Problem> {
        Ok(Folder {
            place: self.clone(),
            name: plain(name)?,
        })
    }

    /// The names of the folders that may have backups.
    pub(super) async fn folders(&self) -> Result<Vec<String>, Problem> {
        match self {
            Self::Directory(directory) => directory.folders().await,
            Self::Bucket(bucket) => bucket.folders().await,
        }
    }

    /// Writes a small file, reads it and removes it again.
    pub(super) async fn test(&self) -> Result<(), Problem> {
        let place = match self {
            Self::Directory(directory) => Self::Directory(directory.clone()),
            Self::Bucket(bucket) => Self::Bucket(bucket.impatient()),
        };
        let folder = place.folder("lodge-test")?;
        let name = format!("{}.txt", Uuid::new_v4().simple());
        let content = b"Written by Lodge to see whether backups can be; it may be removed.\n";
        folder.write(&name, content.to_vec()).await?;
        let read = folder.read(&name, 1 << 10).await;
        let removed = folder.remove(&name).await;
        folder.leave().await;
        if read?.as_deref() != Some(&content[..]) {
            let detail = "what was written to the target is not what is read from it";
            return Err(Problem::new(ErrorCode::FetchFailed, detail));
        }
        removed
    }
}

impl Folder {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The content of a file of at most `most` bytes, if there is one.
    pub(super) async fn read(&self, file: &str, most: usize) -> Result<Option<Vec<u8>>, Problem> {
        let file = plain(file)?;
        match &self.place {
            Place::Directory(directory) => directory.read(&self.name, &file, most).await,
            Place::Bucket(bucket) => bucket.read(&self.name, &file, most).await,
        }
    }

    /// The same of JSON that has to be there.
    pub(super) async fn read_json<T: DeserializeOwned>(
        &self,
        file: &str,
        most: usize,
    ) -> Result<T, Problem> {
        let content = self.read(file, most).await?;
        let content = content.ok_or_else(|| self.missing(file))?;
        serde_json::from_slice(&content).map_err(|error| {
            let detail = format!("{} cannot be read: {error}", self.path(file));
            Problem::new(ErrorCode::InvalidContent, detail)
        })
    }

    /// Writes a file, whole or not at all, in place of the one that there is.
    pub(super) async fn write(&self, file: &str, content: Vec<u8>) -> Result<(), Problem> {
        let file = plain(file)?;
        match &self.place {
            Place::Directory(directory) => directory.write(&self.name, &file, content).await,
            Place::Bucket(bucket) => bucket.write(&self.name, &file, content).await,
        }
    }

    /// The same of one that comes piece by piece, with at most `most` bytes.
    pub(super) async fn store(&self, file: &str, most: u64, pieces: Pieces) -> Result<(), Problem> {
        let file = plain(file)?;
        match &self.place {
            Place::Directory(directory) => directory.store(&self.name, &file, pieces).await,
            Place::Bucket(bucket) => bucket.store(&self.name, &file, most, pieces).await,
        }
    }

    /// Begins to read a file that has to be there.
    pub(super) async fn open(&self, file: &str) -> Result<Incoming, Problem> {
        let name = plain(file)?;
        let opened = match &self.place {
            Place::Directory(directory) => directory.open(&self.name, &name).await?,
            Place::Bucket(bucket) => bucket.open(&self.name, &name).await?,
        };
        opened.ok_or_else(|| self.missing(file))
    }

    /// Removes a file, if it is there.
    pub(super) async fn remove(&self, file: &str) -> Result<(), Problem> {
        let file = plain(file)?;
        match &self.place {
            Place::Directory(directory) => directory.remove(&self.name, &file).await,
            Place::Bucket(bucket) => bucket.remove(&self.name, &file).await,
        }
    }

    /// All files in it with their lengths; none if it is not there.
    pub(super) async fn files(&self) -> Result<BTreeMap<String, u64>, Problem> {
        match &self.place {
            Place::Directory(directory) => directory.files(&self.name).await,
            Place::Bucket(bucket) => bucket.files(&self.name).await,
        }
    }

    /// Removes what is left of files that were being written when somebody died. Nobody writes to it.
    pub(super) async fn sweep(&self) -> Result<(), Problem> {
        match &self.place {
            Place::Directory(directory) => directory.sweep(&self.name).await,
            Place::Bucket(bucket) => bucket.sweep(&self.name).await,
        }
    }

    /// Removes it, if nothing is in it.
    pub(super) async fn leave(&self) {
        if let Place::Directory(directory) = &self.place {
            directory.leave(&self.name).await;
        }
    }

    fn missing(&self, file: &str) -> Problem {
        let detail = format!("{} is not there any more", self.path(file));
        Problem::new(ErrorCode::NotFound, detail)
            .with_hint("it was removed from the target by other means; delete the backup")
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }
}

/// Names come from lists on the target, too: one that leads elsewhere is refused.
fn plain(name: &str) -> Result<FileName, Problem> {
    FileName::new(name).map_err(|error| Problem::new(ErrorCode::InvalidContent, error.to_string()))
}

/// How what was being read ends that cannot be read on.
pub(super) fn broke_off(error: &io::Error) -> Problem {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Problem>())
    {
        Some(problem) => problem.clone(),
        None => internal(format!("reading from the backup target: {error}")),
    }
}
