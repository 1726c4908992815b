//! Uploads of foreign disk images become raw ones before they are kept.

use std::ops::ControlFlow;
use std::sync::Arc;

use lodge_api::image::ImageOrigin;
use lodge_api::{Problem, Size};
use lodge_block::NewFile;
use lodge_block::copy::{CopyError, CopyProgress};
use lodge_block::datastore::{Datastore, DatastoreError};
use lodge_block::foreign::{self, ConvertError, Part};
use lodge_block::format::Format;
use tokio_util::sync::CancellationToken;

use crate::content::{self, image_problem};
use crate::core::blocking;
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
        conversion.run(&upload, format)
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
        let failed = |error: DatastoreError| datastore_problem(&error);
        let part = Part {
            file: upload.file(),
            start: 0,
            length: length(upload)?,
        };
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
        let raw = self.datastore.new_file().map_err(failed)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let done = foreign::convert(
            image.as_mut(),
            part,
            raw.file(),
            threads.min(MOST_THREADS),
            &mut |now| self.go_on(now),
        );
        match done {
            Ok(_) => Ok(Raw {
                format: content::describe_raw(raw.file())?,
                file: raw,
                size,
                origin,
            }),
            Err(ConvertError::Image(error)) => Err(image_problem(&error)),
            Err(ConvertError::Copy(CopyError::Cancelled)) if self.full.is_some() => Err(self
                .full
                .take()
                .unwrap_or_else(crate::operations::cancelled)),
            Err(ConvertError::Copy(error)) => Err(failed(error.into())),
        }
    }

    fn go_on(&mut self, now: CopyProgress) -> ControlFlow<()> {
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
        self.handle.copying("converting", now)
    }
}

fn length(file: &NewFile) -> Result<u64, Problem> {
    lodge_block::datastore::file_info(file.file())
        .map(|info| info.size)
        .map_err(|error| datastore_problem(&error))
}
