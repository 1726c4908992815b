//! Writing an upload to the datastore, off the executor.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use lodge_api::Problem;
use lodge_api::image::{DiskFormat, ImageKind};
use lodge_block::NewFile;
use lodge_block::datastore::{Datastore, DatastoreError};
use lodge_block::format::Format;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::content::{self, Found};
use crate::core::internal;
use crate::images::{KEEP_FREE, datastore_problem, no_space};
use crate::sessions::hex;

/// Chunks that wait to be written; more hold the client back.
const QUEUE: usize = 8;

/// Bytes between two looks at the free space.
pub(crate) const LOOK_EVERY: u64 = 64 << 20;

/// A complete and checked upload that has no name yet; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) file: NewFile,
    pub(crate) size: u64,
    /// In lower-case hexadecimal.
    pub(crate) sha256: String,
    pub(crate) found: Found,
}

/// What an upload has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// An image, and the format that a disk image is said to have.
    Image(ImageKind, Option<DiskFormat>),
    /// A qcow2 of what changed on a disk.
    Changes,
    /// An OVA, which is looked into when it is there.
    Archive,
    /// An ISO with a signature behind it, which is checked when it is there.
    Update,
}

impl Expected {
    fn check_head(self, head: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Image(kind, declared) => content::check_head(kind, declared, head),
            Self::Changes => content::check_changes(head),
            Self::Archive => content::check_archive(head),
            Self::Update => content::check_head(ImageKind::Iso, None, head),
        }
    }

    fn check(self, file: &File) -> Result<Found, Problem> {
        match self {
            Self::Image(kind, declared) => content::check(kind, declared, file),
            Self::Changes => content::changes(file).map(|()| Found::Foreign(Format::Qcow2)),
            Self::Archive => content::archive(file).map(|()| Found::Ready("ova".to_owned())),
            Self::Update => Ok(Found::Ready("update".to_owned())),
        }
    }
}

/// Takes an upload in. Dropped before [`Receiver::finish`], nothing stays.
#[derive(Debug)]
pub(crate) struct Receiver {
    chunks: mpsc::Sender<Message>,
    /// `None` once it has ended.
    task: Option<JoinHandle<Result<Received, Problem>>>,
}

#[derive(Debug)]
enum Message {
    Chunk(Bytes),
    /// The end: without it, the client went away.
    End,
}

impl Receiver {
    pub(crate) fn start(datastore: Arc<Datastore>, expected: Expected) -> Self {
        let (chunks, messages) = mpsc::channel(QUEUE);
        let task = tokio::task::spawn_blocking(move || receive(&datastore, expected, messages));
        Self {
            chunks,
            task: Some(task),
        }
    }

    /// Hands a chunk over. An error of the writer shows here or at the end.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), Problem> {
        if self.chunks.send(Message::Chunk(chunk)).await.is_ok() {
            return Ok(());
        }
        match self.outcome().await {
            Ok(_) => Err(internal("the upload ended by itself")),
            Err(problem) => Err(problem),
        }
    }

    /// Waits until everything is written and checked.
    pub(crate) async fn finish(mut self) -> Result<Received, Problem> {
        // The outcome says why, should the writer be gone.
        let _ = self.chunks.send(Message::End).await;
        self.outcome().await
    }

    /// Ends without an outcome; returns when nothing is left.
    pub(crate) async fn abandon(self) {
        drop(self.chunks);
        if let Some(task) = self.task {
            // It fails for want of an end.
            let _ = task.await;
        }
    }

    async fn outcome(&mut self) -> Result<Received, Problem> {
        match self.task.take() {
            Some(task) => task.await.unwrap_or_else(|error| {
                Err(internal(format!("writing the upload failed: {error}")))
            }),
            None => Err(internal("the upload has ended already")),
        }
    }
}

fn receive(
    datastore: &Datastore,
    expected: Expected,
    mut messages: mpsc::Receiver<Message>,
) -> Result<Received, Problem> {
    let file = datastore
        .new_file()
        .map_err(|error| datastore_problem(&error))?;
    let mut hash = Sha256::new();
    let mut head = Vec::new();
    let (mut size, mut look_at) = (0_u64, LOOK_EVERY);
    loop {
        let chunk = match messages.blocking_recv() {
            Some(Message::Chunk(chunk)) => chunk,
            Some(Message::End) => break,
            None => return Err(internal("the client went away")),
        };
        if head.len() < content::HEAD {
            let missing = content::HEAD - head.len();
            head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
            // A picture is refused after its first bytes, not after its last.
            if head.len() == content::HEAD {
                expected.check_head(&head)?;
            }
        }
        hash.update(&chunk);
        write(file.file(), size, &chunk)?;
        size += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if size >= look_at {
            look_at = size + LOOK_EVERY;
            require_room(datastore)?;
        }
    }
    // Zeroes at the end were not written.
    file.file().set_len(size).map_err(not_written)?;
    let found = expected.check(file.file())?;
    Ok(Received {
        file,
        size,
        sha256: hex(&hash.finalize()),
        found,
    })
}

/// Writes a chunk, or leaves a hole where it is zeroes.
fn write(file: &File, at: u64, chunk: &[u8]) -> Result<(), Problem> {
    if chunk.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    file.write_all_at(chunk, at).map_err(not_written)
}

fn not_written(error: io::Error) -> Problem {
    datastore_problem(&match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            DatastoreError::NoSpace { what: "writing" }
        }
        _ => DatastoreError::Host {
            what: "writing",
            source: error,
        },
    })
}

/// Fails when hardly anything is left for what is still to be written.
pub(crate) fn require_room(datastore: &Datastore) -> Result<(), Problem> {
    let space = datastore
        .space()
        .map_err(|error| datastore_problem(&error))?;
    if space.available < KEEP_FREE {
        return Err(no_space(
            "the datastore has no space left for the rest of the upload",
        ));
    }
    Ok(())
}
