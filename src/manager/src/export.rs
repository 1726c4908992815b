//! Disks and images on their way out, as raw, qcow2 or VMDK, and guests as OVA.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use lodge_api::image::{ExportFormat, ImageKind};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_block::NewFile;
use lodge_block::copy::{self, CopyError};
use lodge_block::datastore::Access;
use lodge_block::foreign::{self, Backing, Export};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::core::{Core, internal};
use crate::disks::DiskRecord;
use crate::images::{ImageRecord, datastore_problem, file_name};
use crate::operations::{OperationHandle, cancelled};
use crate::ova::export::{self as ova, Outgoing};
use crate::snapshots::open_disk as open_saved_disk;
use crate::vms::DiskClaim;
use crate::{Caller, Manager};

/// Pieces that wait to be sent; more hold the reader back.
const QUEUE: usize = 4;

/// An image on its way to a client.
pub struct Download {
    /// Its length in bytes, where that is known before its end.
    pub length: Option<u64>,
    /// Name for the file of the one who takes it.
    pub file_name: String,
    /// The content. What breaks off with an error is not complete.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// A disk, wherever it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored {
    Disk(Uuid),
    Image(Uuid),
    /// Of a snapshot, by its position.
    Saved(Uuid, usize),
}

/// What is read, and what it is sent as.
pub(crate) enum Source {
    /// A disk, and what it is called.
    One(Stored, Name, ExportFormat),
    /// What of a disk is another than in an earlier copy of it.
    Changes {
        now: Stored,
        base: Stored,
        backing: Option<Backing>,
    },
    Machine(Box<Outgoing>),
}

/// What is about to be sent.
pub(crate) struct Opened {
    /// What must not change meanwhile.
    pub(crate) holds: Vec<Hold>,
    pub(crate) export: Box<dyn Export>,
    /// What its position ends at, in bytes.
    pub(crate) size: u64,
}

/// What the client is told before the content.
struct Begun {
    length: Option<u64>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Manager {
    /// Sends a disk. On a filesystem that shares extents it is the disk as it is now, whoever runs with it; elsewhere nobody may.
    ///
    /// # Errors
    /// `NotFound`, `InUse`.
    pub async fn disk_export(
        &self,
        caller: &Caller,
        key: &str,
        format: ExportFormat,
    ) -> Result<Download, Problem> {
        let disk = catalogue::find::<DiskRecord>(&self.core.snapshot(), key)?.value;
        let (target, file_name) = (disk.target(), file_name_of(&disk.name, format));
        let source = Source::One(Stored::Disk(disk.id), disk.name, format);
        self.export(caller, "disk_export", target, file_name, source)
            .await
    }

    /// Sends an image; what is no disk only as it is.
    ///
    /// # Errors
    /// `NotFound`; `InvalidRequest` for a format that only disks have.
    pub async fn image_export(
        &self,
        caller: &Caller,
        key: &str,
        format: ExportFormat,
    ) -> Result<Download, Problem> {
        let image = catalogue::find::<ImageRecord>(&self.core.snapshot(), key)?.value;
        if image.kind != ImageKind::Disk && format != ExportFormat::Raw {
            return Err(Problem::invalid("?format", "only disk images have formats")
                .with_hint("leave it out: what was uploaded is sent as it is"));
        }
        let (target, file_name) = (image.target(), file_name_of(&image.name, format));
        let source = Source::One(Stored::Image(image.id), image.name, format);
        self.export(caller, "image_export", target, file_name, source)
            .await
    }

    pub(crate) async fn export(
        &self,
        caller: &Caller,
        kind: &str,
        target: String,
        file_name: String,
        source: Source,
    ) -> Result<Download, Problem> {
        let core = &self.core;
        core.require_up()?;
        caller.audit(kind, &target);
        let (begun, begins) = oneshot::channel();
        let working = core.clone();
        core.start_operation(caller, kind, target, true, |handle| async move {
            let work = move || send(&working, &handle, &source, begun);
            tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|error| Err(internal(format!("sending failed: {error}"))))
        })
        .await?;
        let Begun { length, pieces } = begins
            .await
            .map_err(|_| internal("an export ended before it began"))??;
        Ok(Download {
            length,
            file_name,
            pieces,
        })
    }
}

pub(crate) fn file_name_of(name: &Name, format: ExportFormat) -> String {
    let extension = match format {
        ExportFormat::Raw => "raw",
        ExportFormat::Qcow2 => "qcow2",
        ExportFormat::Vmdk => "vmdk",
    };
    format!("{name}.{extension}")
}

/// What is held while a disk is read.
pub(crate) enum Hold {
    /// A copy that shares the disk's extents, and goes with this.
    Copy(NewFile),
    /// The disk, to which nobody writes meanwhile.
    Disk { file: File, _claim: DiskClaim },
    /// An image, or part of a snapshot, which never changes.
    Fixed(File),
}

impl Hold {
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::Copy(copy) => copy.file(),
            Self::Disk { file, .. } | Self::Fixed(file) => file,
        }
    }
}

/// Sends the whole of it; the operation's work.
fn send(
    core: &Arc<Core>,
    handle: &OperationHandle,
    source: &Source,
    begun: oneshot::Sender<Result<Begun, Problem>>,
) -> Result<(), Problem> {
    let Opened {
        holds: _holds,
        mut export,
        size,
    } = match open(core, source, handle) {
        Ok(opened) => opened,
        Err(problem) => {
            // Who asked may have gone.
            let _ = begun.send(Err(problem.clone()));
            return Err(problem);
        }
    };
    let (pieces, receiver) = mpsc::channel(QUEUE);
    let begin = Begun {
        length: export.length(),
        pieces: receiver,
    };
    if begun.send(Ok(begin)).is_err() {
        return Err(gone());
    }
    let sent = send_pieces(export.as_mut(), &pieces, handle, size);
    if let Err(problem) = &sent {
        // So that the client sees that it does not have all.
        let _ = pieces.blocking_send(Err(io::Error::other(problem.detail.clone())));
    }
    sent
}

fn send_pieces(
    export: &mut dyn Export,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    handle: &OperationHandle,
    size: u64,
) -> Result<(), Problem> {
    loop {
        if handle.is_cancelled() {
            return Err(cancelled());
        }
        let mut piece = Vec::new();
        export.next_piece(&mut piece).map_err(copy_problem)?;
        handle.progress("sending", export.position().min(size), size);
        if piece.is_empty() {
            return Ok(());
        }
        if pieces.blocking_send(Ok(piece.into())).is_err() {
            return Err(gone());
        }
    }
}

pub(crate) fn open(
    core: &Core,
    source: &Source,
    handle: &OperationHandle,
) -> Result<Opened, Problem> {
    match source {
        Source::One(stored, name, format) => begin(vec![hold(core, *stored)?], |file, _| {
            foreign::export(file, of_block(*format), name.as_str())
        }),
        Source::Changes { now, base, backing } => {
            let holds = vec![hold(core, *now)?, hold(core, *base)?];
            begin(holds, |file, holds| {
                foreign::export_changes(file, holds[1].file(), backing.clone())
            })
        }
        Source::Machine(outgoing) => ova::open(core, outgoing, handle),
    }
}

/// Begins to send the first of what is held.
fn begin(
    holds: Vec<Hold>,
    export: impl FnOnce(File, &[Hold]) -> Result<Box<dyn Export>, CopyError>,
) -> Result<Opened, Problem> {
    let file = holds[0].file().try_clone();
    let file = file.map_err(|error| internal(format!("opening the disk: {error}")))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let export = export(file, &holds).map_err(copy_problem)?;
    Ok(Opened {
        holds,
        export,
        size,
    })
}

/// Holds a disk as it is now.
pub(crate) fn hold(core: &Core, stored: Stored) -> Result<Hold, Problem> {
    let failed = |error| datastore_problem(&error);
    let id = match stored {
        Stored::Disk(id) => id,
        Stored::Image(id) => return core.open_image(id).map(Hold::Fixed),
        Stored::Saved(id, number) => return open_saved_disk(core, id, number).map(Hold::Fixed),
    };
    let disks = core.folders_of_disk(id)?.disks;
    let disk = disks
        .open_file(&file_name(id)?, Access::default())
        .map_err(failed)?;
    let copy = disks.new_file().map_err(failed)?;
    if copy::share_extents(&disk, copy.file()).map_err(copy_problem)? {
        return Ok(Hold::Copy(copy));
    }
    match DiskClaim::new(&core.vms.claims, Uuid::now_v7(), &[(id, true)]) {
        Ok(claim) => Ok(Hold::Disk {
            file: disk,
            _claim: claim,
        }),
        Err(_) => Err(
            Problem::new(ErrorCode::InUse, "a running guest writes to the disk")
                .with_hint("stop the guest first, or export the disk of a snapshot's clone"),
        ),
    }
}

fn of_block(format: ExportFormat) -> foreign::ExportFormat {
    match format {
        ExportFormat::Raw => foreign::ExportFormat::Raw,
        ExportFormat::Qcow2 => foreign::ExportFormat::Qcow2,
        ExportFormat::Vmdk => foreign::ExportFormat::Vmdk,
    }
}

pub(crate) fn copy_problem(error: CopyError) -> Problem {
    datastore_problem(&error.into())
}

fn gone() -> Problem {
    Problem::new(ErrorCode::InvalidRequest, "the client went away")
}
