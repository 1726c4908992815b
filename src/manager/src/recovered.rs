//! After records were lost with a damaged store: the files on the datastores that nothing names any more are disks and images
//! again, under names that say so. Otherwise they would be taken for leftovers of changes that were never finished, and removed.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;

use lodge_api::image::{DiskFormat, ImageKind};
use lodge_api::{Name, Problem};
use lodge_block::FileName;
use lodge_block::datastore::{Access, Datastore};
use lodge_store::{Batch, Precondition, SledStore, Snapshot, Store};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::authorities::AuthorityRecord;
use crate::backups::TargetRecord;
use crate::catalogue::{self, Object};
use crate::content::{self, Found};
use crate::core::internal;
use crate::datastores::DatastoreRecord;
use crate::disks::DiskRecord;
use crate::images::{ImageRecord, datastore_problem, file_name};
use crate::networks::NetworkRecord;
use crate::nvme::{ConnectionRecord, ExportRecord};
use crate::sessions::hex;
use crate::snapshots::{self, SnapshotRecord};
use crate::users::UserRecord;
use crate::vms::VmRecord;

/// Bytes read at once for a checksum.
const PIECE: usize = 1 << 20;

/// What to record, and what to tell people.
#[derive(Default)]
pub(crate) struct Recovered {
    batch: Batch,
    warnings: Vec<String>,
    failed: bool,
}

/// What is looked through.
pub(crate) struct Folders<'a> {
    pub(crate) images: &'a Datastore,
    pub(crate) disks: &'a Datastore,
    pub(crate) saved: &'a Datastore,
}

/// Brings back what can be, durably, and says so. As long as something could not be, the store keeps its losses, and nothing may
/// be removed.
///
/// # Errors
/// When the store takes no changes.
pub(crate) async fn bring_back(
    store: &SledStore,
    on: &Folders<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), Problem> {
    let commit = |batch: Batch| async {
        if batch.is_empty() {
            return Ok(());
        }
        let committed = store.commit(batch).await;
        committed
            .map(drop)
            .map_err(|error| catalogue::store_problem(&error))
    };
    let mut found = recover(on, &store.snapshot());
    // The others are looked through when they are opened.
    unsettle(&mut found.batch, &store.snapshot())?;
    commit(found.batch).await?;
    let snapshot = store.snapshot();
    let mut names = Batch::new();
    catalogue::mend_names::<AuthorityRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<TargetRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<DatastoreRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<DiskRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<ImageRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<NetworkRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<ConnectionRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<ExportRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<SnapshotRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<UserRecord>(&mut names, &snapshot)?;
    catalogue::mend_names::<VmRecord>(&mut names, &snapshot)?;
    commit(names).await?;
    warnings.extend(found.warnings);
    if found.failed {
        return Ok(());
    }
    store
        .settle_losses()
        .map_err(|error| internal(format!("settling what the store had lost: {error}")))
}

fn unsettle(batch: &mut Batch, snapshot: &Snapshot) -> Result<(), Problem> {
    for record in catalogue::list::<DatastoreRecord>(snapshot) {
        if record.value.key().is_some() {
            let unsettled = DatastoreRecord {
                unsettled: true,
                ..record.value.clone()
            };
            catalogue::replace(batch, &record, &unsettled)?;
        }
    }
    Ok(())
}

fn recover(on: &Folders<'_>, snapshot: &Snapshot) -> Recovered {
    let mut recovered = Recovered::default();
    recovered.keep_disks(None, on.disks, on.saved, snapshot);
    for id in unrecorded::<ImageRecord>(on.images, snapshot) {
        let kept = recovered.keep_image(on.images, id, snapshot);
        recovered.tell("image", &id.to_string(), kept);
    }
    recovered
}

/// What is to be recorded of a datastore beside the host's own data storage.
pub(crate) fn on_datastore(
    id: Uuid,
    folders: &crate::datastores::Folders,
    snapshot: &Snapshot,
) -> Recovered {
    let mut recovered = Recovered::default();
    recovered.keep_disks(Some(id), &folders.disks, &folders.saved, snapshot);
    recovered
}

/// The disks that are on a datastore, by their records.
pub(crate) fn disks_on(snapshot: &Snapshot, datastore: Option<Uuid>) -> Vec<DiskRecord> {
    let disks = catalogue::list::<DiskRecord>(snapshot).into_iter();
    disks
        .map(|disk| disk.value)
        .filter(|disk| disk.datastore == datastore)
        .collect()
}

/// Objects whose content is not there any more: what their records say they have was deleted after the copy of the store
/// was made that they come from, or is lost.
pub(crate) fn without_files<O: Object>(
    objects: impl IntoIterator<Item = O>,
    datastore: &Datastore,
) -> Vec<String> {
    let missing = |object: &O| {
        let info = file_name(object.id()).map(|file| datastore.info(&file));
        !matches!(info, Ok(Ok(_)))
    };
    objects
        .into_iter()
        .filter(missing)
        .map(|object| {
            let (kind, name) = (O::KIND, object.name());
            format!("The {kind} \"{name}\" has lost its content: its file is not there, or cannot be read. Delete the {kind}, or restore it from a backup.")
        })
        .collect()
}

/// What people know of it: its kind and name.
type Kept = Result<(&'static str, Name), Problem>;

impl Recovered {
    /// Whether all was brought back.
    pub(crate) fn is_whole(&self) -> bool {
        !self.failed
    }

    /// What to record, and what to tell people.
    pub(crate) fn outcome(self) -> (Batch, Vec<String>) {
        (self.batch, self.warnings)
    }

    /// Finds files that no record names. Files of snapshots become disks of their own; the guest that one of them was of is not known
    /// any more, and so is its memory of no use.
    fn keep_disks(
        &mut self,
        datastore: Option<Uuid>,
        disks: &Datastore,
        saved: &Datastore,
        snapshot: &Snapshot,
    ) {
        for id in unrecorded::<DiskRecord>(disks, snapshot) {
            let kept = self.keep_disk(datastore, disks, id, snapshot);
            self.tell("disk", &id.to_string(), kept);
        }
        let files = saved.files().unwrap_or_default();
        let lost = |file: &&FileName| {
            snapshots::disk_of_file(file).is_some_and(|id| !known::<SnapshotRecord>(snapshot, id))
        };
        for file in files.iter().filter(lost) {
            let kept = self.keep_saved_disk(datastore, disks, saved, file);
            self.tell("disk of a snapshot", file.as_str(), kept);
        }
    }

    fn keep_disk(
        &mut self,
        datastore: Option<Uuid>,
        disks: &Datastore,
        id: Uuid,
        snapshot: &Snapshot,
    ) -> Kept {
        let info = disks.info(&file_name(id)?);
        let size = info.map_err(|error| datastore_problem(&error))?.size;
        self.record(snapshot, id, |name| {
            DiskRecord::recovered(id, name, size).on(datastore)
        })
    }

    fn keep_image(&mut self, images: &Datastore, id: Uuid, snapshot: &Snapshot) -> Kept {
        let file = images
            .open_file(&file_name(id)?, Access::default())
            .map_err(|error| datastore_problem(&error))?;
        let (kind, format) = kind_of(&file)?;
        let read = |error: io::Error| internal(format!("reading an image: {error}"));
        let size = file.metadata().map_err(read)?.len();
        let sha256 = checksum(&file).map_err(read)?;
        self.record(snapshot, id, |name| {
            ImageRecord::recovered(id, name, kind, size, sha256, format)
        })
    }

    /// The snapshot's own file is removed later, with what else nobody needs.
    fn keep_saved_disk(
        &mut self,
        datastore: Option<Uuid>,
        disks: &Datastore,
        saved: &Datastore,
        file: &FileName,
    ) -> Kept {
        let failed = |error| datastore_problem(&error);
        let source = saved.open_file(file, Access::default()).map_err(failed)?;
        let size = saved.info(file).map_err(failed)?.size;
        let id = Uuid::now_v7();
        disks
            .clone_file(&source, &file_name(id)?, &mut |_| ControlFlow::Continue(()))
            .map_err(failed)?;
        self.record(&Snapshot::default(), id, |name| {
            DiskRecord::recovered(id, name, size).on(datastore)
        })
    }

    /// Under the name that it had, where that is still known.
    fn record<O: Object>(
        &mut self,
        snapshot: &Snapshot,
        id: Uuid,
        make: impl FnOnce(Name) -> O,
    ) -> Kept {
        let name = match catalogue::name_given::<O>(snapshot, id) {
            Some(name) => name,
            None => made_up(id)?,
        };
        self.batch
            .put(id.to_string(), &make(name.clone()), Precondition::Absent)
            .map_err(|error| catalogue::record_problem(&error))?;
        Ok((O::KIND, name))
    }

    fn tell(&mut self, what: &str, file: &str, kept: Kept) {
        self.warnings.push(match kept {
            Ok((kind, name)) => format!(
                "A {what} that the damaged store had lost is there again, as the {kind} \"{name}\"."
            ),
            Err(problem) => {
                self.failed = true;
                format!("A {what} that the damaged store had lost ({file}) could not be brought back: {problem}. It is kept.")
            }
        });
    }
}

fn known<O: Object>(snapshot: &Snapshot, id: Uuid) -> bool {
    catalogue::find_optional::<O>(snapshot, &id.to_string()).is_ok_and(|found| found.is_some())
}

fn unrecorded<O: Object>(datastore: &Datastore, snapshot: &Snapshot) -> Vec<Uuid> {
    let files = datastore.files().unwrap_or_default();
    files
        .iter()
        .filter_map(|file| file.as_str().parse().ok())
        .filter(|id| !known::<O>(snapshot, *id))
        .collect()
}

/// The end of an id is its random part.
fn made_up(id: Uuid) -> Result<Name, Problem> {
    let text = id.simple().to_string();
    let name = format!("recovered-{}", &text[text.len() - 12..]);
    name.parse()
        .map_err(|_| internal(format!("the name {name} cannot be given")))
}

/// The first kind that accepts it; a disk may have anything on it.
fn kind_of(file: &File) -> Result<(ImageKind, String), Problem> {
    for kind in [ImageKind::Kernel, ImageKind::Initrd, ImageKind::Iso] {
        if let Ok(Found::Ready(format)) = content::check(kind, None, file) {
            return Ok((kind, format));
        }
    }
    match content::check(ImageKind::Disk, Some(DiskFormat::Raw), file)? {
        Found::Ready(format) => Ok((ImageKind::Disk, format)),
        Found::Foreign(_) => Err(internal("a raw image is not taken for one")),
    }
}

fn checksum(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&piece[..length]),
        }
    }
}
