//! Images: uploaded kernels, initial RAM disks and disk images.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use lodge_api::event::Change;
use lodge_api::image::{Image, ImageKind, ImageOrigin, ImageUpload};
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Name, Problem, Size};
use lodge_block::FileName;
use lodge_block::datastore::{Access, Datastore, DatastoreError};
use lodge_store::{Batch, Record, Versioned};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::content::Found;
use crate::convert::to_raw;
use crate::core::{Core, blocking, internal};
use crate::fetch::{Fetch, Fetched, in_body};
use crate::filter::Field;
use crate::networks::in_use;
use crate::operations::{OperationHandle, cancelled};
use crate::upload::{Expected, Received, Receiver};
use crate::vms::VmRecord;
use crate::{Caller, IfMatch, Manager};

/// Room that uploads and copies leave on the datastore, so that the host can go on working.
pub(crate) const KEEP_FREE: u64 = 64 << 20;

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("kind", "/kind"),
    ("format", "/format"),
    ("sha256", "/sha256"),
];

/// An image as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    pub(crate) kind: ImageKind,
    pub(crate) size: Size,
    sha256: String,
    format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<ImageOrigin>,
    created_at: Timestamp,
}

impl ImageRecord {
    /// The image of a file that no record names.
    pub(crate) fn recovered(
        id: Uuid,
        name: Name,
        kind: ImageKind,
        size: u64,
        sha256: String,
        format: String,
    ) -> Self {
        Self {
            id,
            name,
            kind,
            size: Size(size),
            sha256,
            format,
            origin: None,
            created_at: Timestamp::now(),
        }
    }

    /// In the place of one that is not on this host.
    pub(crate) fn absent(name: Name, kind: ImageKind) -> Self {
        Self {
            id: Uuid::now_v7(),
            name,
            kind,
            size: Size::default(),
            sha256: String::new(),
            format: String::new(),
            origin: None,
            created_at: Timestamp::now(),
        }
    }
}

impl Record for ImageRecord {
    const TABLE: &'static str = "images";
    const SCHEMA: u32 = 1;
}

impl Object for ImageRecord {
    const KIND: &'static str = "image";
    const PATH: &'static str = "images";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

fn view(record: &Versioned<ImageRecord>) -> Image {
    let image = &record.value;
    Image {
        id: image.id,
        name: image.name.clone(),
        kind: image.kind,
        size: image.size,
        sha256: image.sha256.clone(),
        format: image.format.clone(),
        origin: image.origin.clone(),
        created_at: image.created_at,
        revision: record.revision,
    }
}

/// The file of an image or disk: its id.
pub(crate) fn file_name(id: Uuid) -> Result<FileName, Problem> {
    FileName::new(&id.to_string()).map_err(|error| internal(error.to_string()))
}

/// What a failed datastore call means to the caller.
pub(crate) fn datastore_problem(error: &DatastoreError) -> Problem {
    match error {
        DatastoreError::NoSpace { .. } => no_space("the datastore has no space left"),
        DatastoreError::Cancelled => cancelled(),
        DatastoreError::Size { problem, .. } => Problem::invalid("/size", *problem),
        other => internal(format!("the datastore failed: {other}")),
    }
}

pub(crate) fn no_space(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::NoSpace, detail).with_hint("delete images or disks that are not needed")
}

/// An image to be, whose name is free.
struct Wanted {
    upload: ImageUpload,
    /// The checksum it has to have.
    sha256: Option<String>,
}

impl Wanted {
    fn target(&self) -> String {
        catalogue::target::<ImageRecord>(&self.upload.name)
    }
}

/// An upload that ends when its future is dropped: then nobody answers the operation.
pub(crate) struct Upload {
    pub(crate) handle: OperationHandle,
    outcome: oneshot::Sender<Result<(), Problem>>,
}

impl Upload {
    /// Tells the operation how it ended.
    pub(crate) fn end<T>(self, result: &Result<T, Problem>) {
        let outcome = result.as_ref().map(drop).map_err(Clone::clone);
        // The operation waits for nothing else; it cannot be gone.
        let _ = self.outcome.send(outcome);
    }
}

impl Core {
    /// Opens an image for reading.
    pub(crate) fn open_image(&self, id: Uuid) -> Result<std::fs::File, Problem> {
        self.images
            .open_file(&file_name(id)?, Access::default())
            .map_err(|error| datastore_problem(&error))
    }

    /// Refuses what does not fit on the datastore.
    pub(crate) fn require_space(&self, datastore: &Datastore, bytes: u64) -> Result<(), Problem> {
        let space = datastore
            .space()
            .map_err(|error| datastore_problem(&error))?;
        let usable = space.available.saturating_sub(KEEP_FREE);
        if bytes > usable {
            return Err(no_space(format!(
                "{} are needed and {} are free",
                Size(bytes),
                Size(usable)
            )));
        }
        Ok(())
    }
}

impl Manager {
    /// By name. Filter fields: `id name kind format sha256`.
    pub fn image_list(&self, params: &ListParams) -> Result<Page<Image>, Problem> {
        let snapshot = self.core.snapshot();
        catalogue::page(&snapshot, params, FIELDS, view, |image| &image.name)
    }

    /// One image, by name or id.
    pub fn image_view(&self, key: &str) -> Result<Image, Problem> {
        Ok(view(&catalogue::find(&self.core.snapshot(), key)?))
    }

    /// Stores an image. Dropping the future, or an error in `body`, leaves nothing behind.
    ///
    /// `declared_len` is the request's Content-Length, by which a lack of space is found at once.
    ///
    /// # Errors
    /// `AlreadyExists`, `PayloadTooLarge`, `NoSpace`, `InvalidContent`, `ChecksumMismatch`;
    /// `InvalidRequest` when the body ends early.
    pub async fn image_upload(
        &self,
        caller: &Caller,
        upload: ImageUpload,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
    ) -> Result<Image, Problem> {
        let wanted = self.wanted(upload)?;
        self.require_room_for(&self.core.images, declared_len)?;
        let running = self
            .upload_operation(caller, "image_upload", wanted.target())
            .await?;
        let result = self
            .take_image(caller, wanted, declared_len, body, &running.handle)
            .await;
        running.end(&result);
        result
    }

    /// Stores an image that the host fetches, whether or not anybody waits for it.
    ///
    /// # Errors
    /// `AlreadyExists`; those of [`Manager::image_upload`] are the operation's.
    pub async fn image_fetch(
        &self,
        caller: &Caller,
        upload: ImageUpload,
        fetch: Fetch,
    ) -> Result<Operation, Problem> {
        let wanted = self.wanted(upload).map_err(in_body)?;
        let (manager, who, target) = (self.clone(), caller.clone(), wanted.target());
        self.core
            .start_operation(caller, "image_fetch", target, true, |handle| async move {
                let fetched = manager.begin_fetch(&manager.core.images, fetch, &handle);
                let Fetched { length, body } = fetched.await?;
                let taken = manager.take_image(&who, wanted, length, body, &handle);
                taken.await.map(drop).map_err(in_body)
            })
            .await
    }

    /// Refuses an image that could not be stored whatever its content is.
    fn wanted(&self, upload: ImageUpload) -> Result<Wanted, Problem> {
        self.core.require_changeable()?;
        let sha256 = upload.sha256.as_deref().map(checksum).transpose()?;
        if upload.format.is_some() && upload.kind != ImageKind::Disk {
            return Err(Problem::invalid("?format", "only disk images have one")
                .with_hint("leave it out, or choose the kind `disk`"));
        }
        catalogue::require_free::<ImageRecord>(&self.core.snapshot(), &upload.name)
            .map_err(|problem| problem.with_pointer("?name"))?;
        Ok(Wanted { upload, sha256 })
    }

    async fn take_image(
        &self,
        caller: &Caller,
        wanted: Wanted,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
        handle: &OperationHandle,
    ) -> Result<Image, Problem> {
        let expected = Expected::Image(wanted.upload.kind, wanted.upload.format);
        let receiver = Receiver::start(self.core.images.clone(), expected);
        let received = self.receive(receiver, declared_len, body, handle).await?;
        self.keep_image(caller, wanted, received, handle).await
    }

    /// Refuses a body that cannot be kept, by the length it is said to have.
    pub(crate) fn require_room_for(
        &self,
        datastore: &Datastore,
        declared_len: Option<u64>,
    ) -> Result<(), Problem> {
        let most = self.core.config.max_image;
        if declared_len.is_some_and(|length| length > most) {
            return Err(too_large(most));
        }
        self.core
            .require_space(datastore, declared_len.unwrap_or(0))
    }

    /// Takes a body in; nothing stays of one that breaks off.
    pub(crate) async fn receive(
        &self,
        mut receiver: Receiver,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
        handle: &OperationHandle,
    ) -> Result<Received, Problem> {
        match self.feed(&mut receiver, declared_len, body, handle).await {
            Ok(()) => receiver.finish().await,
            Err(problem) => {
                receiver.abandon().await;
                Err(problem)
            }
        }
    }

    /// Passes the body on, to its end.
    async fn feed(
        &self,
        receiver: &mut Receiver,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let mut body = std::pin::pin!(body);
        let mut received = 0_u64;
        loop {
            let next = tokio::select! {
                next = body.next() => next,
                () = handle.cancelled() => return Err(cancelled()),
            };
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|error| interrupted(&error))?;
            received += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if received > self.core.config.max_image {
                return Err(too_large(self.core.config.max_image));
            }
            receiver.write(chunk).await?;
            handle.progress("receiving", received, declared_len.unwrap_or(0));
        }
        if declared_len.is_some_and(|length| length != received) {
            return Err(Problem::new(
                ErrorCode::InvalidRequest,
                format!("the body ended after {received} bytes"),
            )
            .with_hint("repeat the upload"));
        }
        handle.progress("checking", received, received);
        Ok(())
    }

    /// An operation that shows the upload to others, and lets them cancel it.
    pub(crate) async fn upload_operation(
        &self,
        caller: &Caller,
        kind: &str,
        target: String,
    ) -> Result<Upload, Problem> {
        let (outcome, result) = oneshot::channel();
        let (give, take) = oneshot::channel();
        self.core
            .start_operation(caller, kind, target, true, |handle| async move {
                // The one who waits for it may have been dropped already: then so is `outcome`.
                let _ = give.send(handle);
                result.await.unwrap_or_else(|_| {
                    Err(Problem::new(
                        ErrorCode::InvalidRequest,
                        "the client went away",
                    ))
                })
            })
            .await?;
        let handle = take
            .await
            .map_err(|_| internal("an operation did not start"))?;
        Ok(Upload { handle, outcome })
    }

    async fn keep_image(
        &self,
        caller: &Caller,
        Wanted { upload, sha256 }: Wanted,
        received: Received,
        handle: &OperationHandle,
    ) -> Result<Image, Problem> {
        if let Some(expected) = sha256
            && expected != received.sha256
        {
            return Err(wrong_checksum(&received.sha256));
        }
        let (file, size, format, origin) = match received.found {
            Found::Ready(format) => (received.file, received.size, format, None),
            Found::Foreign(format) => {
                let images = self.core.images.clone();
                let raw = to_raw(images, received.file, format, handle.clone()).await?;
                (raw.file, raw.size, raw.format, Some(raw.origin))
            }
        };
        handle.commit_to_finish()?;
        let record = ImageRecord {
            id: Uuid::now_v7(),
            name: upload.name,
            kind: upload.kind,
            size: Size(size),
            sha256: received.sha256,
            format,
            origin,
            created_at: Timestamp::now(),
        };
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let core = manager.core.clone();
            let name = file_name(record.id)?;
            blocking(move || {
                file.commit(&name)
                    .map_err(|error| datastore_problem(&error))
            })
            .await?;
            let made = core.add(&record).await;
            if made.is_err() {
                core.remove_image_file(record.id).await;
            }
            let made = made?;
            core.make_known(&caller, "image_upload", record.target(), Change::Created);
            Ok(view(&made))
        })
        .await
    }

    /// Deletes an image no guest names.
    pub async fn image_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<ImageRecord>(&key, if_match).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            let name = &old.value.name;
            let uses = |vm: &VmRecord| {
                let boot = &vm.spec.boot;
                let named = |image: &Option<Name>| image.as_ref() == Some(name);
                let discs = || vm.spec.cdroms.iter().any(|drive| named(&drive.image));
                named(&boot.kernel) || named(&boot.initrd) || discs()
            };
            let used_by: Vec<Name> = catalogue::list::<VmRecord>(snapshot)
                .into_iter()
                .filter(|vm| uses(&vm.value))
                .map(|vm| vm.value.spec.name)
                .collect();
            if !used_by.is_empty() {
                return Err(in_use("image", name, &used_by));
            }
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, old)?;
            core.commit(batch).await?;
            core.remove_image_file(old.value.id).await;
            core.make_known(&caller, "image_delete", old.value.target(), Change::Deleted);
            Ok(())
        })
        .await
    }
}

impl Core {
    /// Removes the file of an image that is not recorded any more. Should it fail, the next start does it.
    async fn remove_image_file(&self, id: Uuid) {
        let images = self.images.clone();
        let removed = blocking(move || {
            images
                .remove_file(&file_name(id)?)
                .map_err(|error| datastore_problem(&error))
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, %id, "the file of a deleted image stays");
        }
    }
}

pub(crate) fn wrong_checksum(found: &str) -> Problem {
    Problem::new(
        ErrorCode::ChecksumMismatch,
        format!("the content has SHA-256 {found}"),
    )
    .with_pointer("?sha256")
    .with_hint("the upload was damaged on its way, or is another file")
}

pub(crate) fn checksum(text: &str) -> Result<String, Problem> {
    let text = text.to_ascii_lowercase();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Problem::invalid("?sha256", "not a SHA-256 checksum")
            .with_hint("give 64 hexadecimal digits, as `sha256sum` prints them"));
    }
    Ok(text)
}

fn too_large(most: u64) -> Problem {
    Problem::new(
        ErrorCode::PayloadTooLarge,
        format!("an image may have at most {}", Size(most)),
    )
}

fn interrupted(error: &io::Error) -> Problem {
    let told = error.get_ref().and_then(|error| error.downcast_ref());
    if let Some(problem) = told {
        return Problem::clone(problem);
    }
    Problem::new(
        ErrorCode::InvalidRequest,
        format!("the upload was interrupted: {error}"),
    )
    .with_hint("repeat the upload")
}
