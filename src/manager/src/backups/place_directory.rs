//! Backups in a folder of the host, which may be on a network filesystem.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use lodge_api::Problem;
use lodge_block::FileName;
use lodge_block::datastore::{Access, Datastore, DatastoreError};
use tokio::sync::mpsc;

use super::place::{Incoming, Pieces};
use crate::core::{blocking, internal};
use crate::images::datastore_problem;
use crate::upload::{LOOK_EVERY, require_room};

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;

/// Pieces that wait to be taken; more hold the reader back.
const QUEUE: usize = 4;

/// The folder that the guests' folders are in.
#[derive(Clone)]
pub(super) struct InDirectory(Arc<Datastore>);

impl InDirectory {
    /// That of a target in a directory that is there.
    pub(super) fn new(directory: Arc<Datastore>) -> Self {
        Self(directory)
    }

    /// Does it off the executor, in a folder that is there; nothing of one that is not.
    async fn within<T: Default + Send + 'static>(
        &self,
        folder: &FileName,
        work: impl FnOnce(Datastore) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (root, folder) = (self.0.clone(), folder.clone());
        blocking(move || match root.open_directory(&folder) {
            Ok(folder) => work(folder),
            Err(DatastoreError::NotFound { .. }) => Ok(T::default()),
            Err(error) => Err(datastore_problem(&error)),
        })
        .await
    }

    pub(super) async fn folders(&self) -> Result<Vec<String>, Problem> {
        let root = self.0.clone();
        blocking(move || {
            let names = root
                .directories()
                .map_err(|error| datastore_problem(&error))?;
            Ok(names.iter().map(ToString::to_string).collect())
        })
        .await
    }

    pub(super) async fn read(
        &self,
        folder: &FileName,
        file: &FileName,
        most: usize,
    ) -> Result<Option<Vec<u8>>, Problem> {
        let file = file.clone();
        self.within(folder, move |folder| {
            let Some(opened) = there(folder.open_file(&file, Access::default()))? else {
                return Ok(None);
            };
            let mut content = Vec::new();
            let read = opened.take(most as u64 + 1).read_to_end(&mut content);
            read.map_err(|error| internal(format!("reading {file}: {error}")))?;
            if content.len() > most {
                return Err(internal(format!("{file} has more than {most} bytes")));
            }
            Ok(Some(content))
        })
        .await
    }

    pub(super) async fn write(
        &self,
        folder: &FileName,
        file: &FileName,
        content: Vec<u8>,
    ) -> Result<(), Problem> {
        let (sender, pieces) = mpsc::channel(2);
        // There is room for both.
        let _ = sender.send(Ok(content.into())).await;
        let _ = sender.send(Ok(Bytes::new())).await;
        self.store(folder, file, pieces).await
    }

    pub(super) async fn store(
        &self,
        folder: &FileName,
        file: &FileName,
        pieces: Pieces,
    ) -> Result<(), Problem> {
        let (root, folder, file) = (self.0.clone(), folder.clone(), file.clone());
        blocking(move || take(&folder_in(&root, &folder)?, &file, pieces)).await
    }

    pub(super) async fn open(
        &self,
        folder: &FileName,
        file: &FileName,
    ) -> Result<Option<Incoming>, Problem> {
        let name = file.clone();
        let opened = self.within(folder, move |folder| {
            let Some(file) = there(folder.open_file(&name, Access::default()))? else {
                return Ok(None);
            };
            let length = file.metadata().map(|metadata| metadata.len());
            let length = length.map_err(|error| internal(format!("reading {name}: {error}")))?;
            Ok(Some((file, length)))
        });
        let Some((file, length)) = opened.await? else {
            return Ok(None);
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        // Its end shows in the pieces.
        drop(tokio::task::spawn_blocking(move || give(file, &sender)));
        let pieces = stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        Ok(Some(Incoming {
            length,
            pieces: pieces.boxed(),
        }))
    }

    pub(super) async fn remove(&self, folder: &FileName, file: &FileName) -> Result<(), Problem> {
        let file = file.clone();
        self.within(folder, move |folder| {
            there(folder.remove_file(&file)).map(drop)
        })
        .await
    }

    pub(super) async fn files(&self, folder: &FileName) -> Result<BTreeMap<String, u64>, Problem> {
        self.within(folder, |folder| {
            let mut files = BTreeMap::new();
            let names = folder.files().map_err(|error| datastore_problem(&error))?;
            for name in names {
                if let Some(info) = there(folder.info(&name))? {
                    files.insert(name.to_string(), info.size);
                }
            }
            Ok(files)
        })
        .await
    }

    pub(super) async fn sweep(&self, folder: &FileName) -> Result<(), Problem> {
        self.within(folder, |folder| {
            let removed = folder.remove_leftovers();
            removed.map(drop).map_err(|error| datastore_problem(&error))
        })
        .await
    }

    pub(super) async fn leave(&self, folder: &FileName) {
        let (root, folder) = (self.0.clone(), folder.clone());
        let left = blocking(move || {
            // One that is not empty stays.
            let _ = root.remove_directory(&folder);
            Ok(())
        });
        let _ = left.await;
    }
}

/// A folder in another, which is made if it is not there.
pub(super) fn folder_in(root: &Datastore, name: &FileName) -> Result<Datastore, Problem> {
    let folder = match root.create_directory(name) {
        Err(DatastoreError::Exists { .. }) => root.open_directory(name),
        other => other,
    };
    folder.map_err(|error| datastore_problem(&error))
}

/// What there is of it.
fn there<T>(found: Result<T, DatastoreError>) -> Result<Option<T>, Problem> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(DatastoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(datastore_problem(&error)),
    }
}

/// Takes a file in, to its end.
fn take(folder: &Datastore, name: &FileName, mut pieces: Pieces) -> Result<(), Problem> {
    require_room(folder)?;
    let new = folder
        .new_file()
        .map_err(|error| datastore_problem(&error))?;
    let (mut size, mut look_at) = (0_u64, LOOK_EVERY);
    loop {
        let piece = pieces.blocking_recv();
        let piece = piece.ok_or_else(|| internal("the content broke off"))?;
        let piece = piece.map_err(|error| internal(error.to_string()))?;
        if piece.is_empty() {
            break;
        }
        new.file().write_all(&piece).map_err(|error| {
            let failed = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    DatastoreError::NoSpace { what: "writing" }
                }
                _ => DatastoreError::Host {
                    what: "writing",
                    source: error,
                },
            };
            datastore_problem(&failed)
        })?;
        size += piece.len() as u64;
        if size >= look_at {
            look_at = size + LOOK_EVERY;
            require_room(folder)?;
        }
    }
    new.replace(name).map_err(|error| datastore_problem(&error))
}

/// Gives a file out, as long as somebody takes it.
fn give(mut file: File, to: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = Vec::new();
        let read = (&mut file).take(PIECE).read_to_end(&mut piece);
        let ended = matches!(read, Ok(0) | Err(_));
        let piece = match read {
            Ok(0) => return,
            Ok(_) => Ok(piece.into()),
            Err(error) => Err(error),
        };
        if to.blocking_send(piece).is_err() || ended {
            return;
        }
    }
}
