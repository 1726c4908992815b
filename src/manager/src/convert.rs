//! Uploads of foreign disk images become raw ones before they are kept, and those of changes are written to a copy of the disk.

use std::ops::ControlFlow;
use std::sync::Arc;

use lodge_api::image::ImageOrigin;
use lodge_api::{Problem, Size};
use lodge_block::copy::CopyProgress;
use lodge_block::datastore::{Access, Datastore, DatastoreError};
use lodge_block::foreign::{self, ConvertError, Part};
use lodge_block::format::Format;
use lodge_block::{FileName, NewFile};
use tokio_util::sync::CancellationToken;

use crate::content::{self, image_problem};
use crate::core::{blocking, internal};
use crate::images::datastore_problem;
use crate::operations::OperationHandle;
use crate::upload::{LOOK_EVERY, require_room};

/// Threads that one conversion may keep busy: guests want processors, too.
const MOST_THREADS: usize = 4;

/// A raw disk that has no name yet; dropped, it is gone.
pub(crate) struct Raw {
    pub(crate) file: NewFile,
    pub(crate) size: u64,
    /// What is on it.
    pub(crate) format: String,
    pub(crate) origin: ImageOrigin,
}

/// Makes a raw disk of an upload, which is gone afterwards. Dropping the future ends the work and leaves nothing.
pub(crate) async fn to_raw(
    datastore: Arc<Datastore>,
    upload: NewFile,
    format: Format,
    handle: OperationHandle,
) -> Result<Raw, Problem> {
    off_the_executor(datastore, handle, move |conversion| {
        conversion.run(&upload, format)
    })
    .await
}

/// Makes a copy of a disk with the changes in an upload, which is gone afterwards; it comes with its size. Otherwise as [`to_raw`].
pub(crate) async fn with_changes(
    datastore: Arc<Datastore>,
    upload: NewFile,
    disk: FileName,
    handle: OperationHandle,
) -> Result<(NewFile, u64), Problem> {
    off_the_executor(datastore, handle, move |conversion| {
        conversion.apply(&upload, &disk)
    })
    .await
}

async fn off_the_executor<T: Send + 'static>(
    datastore: Arc<Datastore>,
    handle: OperationHandle,
    work: impl FnOnce(&mut Conversion<'_>) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    let converted = blocking(move || {
        let mut conversion = Conversion {
            datastore: &datastore,
            handle: &handle,
            gone: &gone,
            look_at: LOOK_EVERY,
            full: None,
        };
        work(&mut conversion)
    })
    .await;
    drop(guard);
    converted
}

struct Conversion<'a> {
    datastore: &'a Datastore,
    handle: &'a OperationHandle,
    /// Nobody waits for the outcome any more.
    gone: &'a CancellationToken,
    /// Bytes copied after which to look at the free space again.
    look_at: u64,
    full: Option<Problem>,
}

impl Conversion<'_> {
    fn run(&mut self, upload: &NewFile, format: Format) -> Result<Raw, Problem> {
        let part = whole(upload)?;
        let mut image = foreign::open(part, format).map_err(|error| image_problem(&error))?;
        let origin = ImageOrigin {
            format: image.describe(),
            size: Size(part.length),
        };
        let size = image.size();
        self.handle.log(format!(
            "the upload is {}, with a disk of {}; it is made into a raw image",
            origin.format,
            Size(size)
        ));
        let raw = self.datastore.new_file();
        let raw = raw.map_err(|error| datastore_problem(&error))?;
        let done = foreign::convert(image.as_mut(), part, raw.file(), threads(), &mut |now| {
            self.go_on("converting", now)
        });
        done.map_err(|error| self.problem(error))?;
        Ok(Raw {
            format: content::describe_raw(raw.file())?,
            file: raw,
            size,
            origin,
        })
    }

    fn apply(&mut self, upload: &NewFile, disk: &FileName) -> Result<(NewFile, u64), Problem> {
        let part = whole(upload)?;
        let mut changes = foreign::open_changes(part).map_err(|error| image_problem(&error))?;
        let failed = |error: DatastoreError| datastore_problem(&error);
        let datastore = self.datastore;
        let disk = datastore.open_file(disk, Access::default());
        let disk = disk.map_err(failed)?;
        let (copy, _) = datastore
            .copy_of(&disk, &mut |now| self.go_on("copying", now))
            .map_err(|error| self.refused(&error))?;
        self.look_at = LOOK_EVERY;
        let done = foreign::apply(changes.as_mut(), part, copy.file(), threads(), &mut |now| {
            self.go_on("applying", now)
        });
        let done = done.map_err(|error| self.problem(error))?;
        Ok((copy, done.size))
    }

    /// What it means to the caller.
    fn problem(&mut self, error: ConvertError) -> Problem {
        match error {
            ConvertError::Image(error) => image_problem(&error),
            ConvertError::Copy(error) => self.refused(&error.into()),
        }
    }

    /// As [`Conversion::problem`], also where it was this that stopped it.
    fn refused(&mut self, error: &DatastoreError) -> Problem {
        let stopped = matches!(error, DatastoreError::Cancelled);
        let full = self.full.take().filter(|_| stopped);
        full.unwrap_or_else(|| datastore_problem(error))
    }

    fn go_on(&mut self, phase: &str, now: CopyProgress) -> ControlFlow<()> {
        if self.gone.is_cancelled() {
            return ControlFlow::Break(());
        }
        if now.copied >= self.look_at {
            self.look_at = now.copied + LOOK_EVERY;
            if let Err(problem) = require_room(self.datastore) {
                self.full = Some(problem);
                return ControlFlow::Break(());
            }
        }
        self.handle.copying(phase, now)
    }
}

fn whole(upload: &NewFile) -> Result<Part<'_>, Problem> {
    Part::whole(upload.file()).map_err(|error| internal(format!("reading the upload: {error}")))
}

/// Threads for one conversion.
pub(crate) fn threads() -> usize {
    let threads = std::thread::available_parallelism();
    threads.map_or(1, usize::from).min(MOST_THREADS)
}
