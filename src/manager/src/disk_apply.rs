//! What changed on a disk, written to one that is as it was before: the way back of incremental backups.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use lodge_api::disk::{Disk, DiskApply};
use lodge_api::event::Change;
use lodge_api::{ErrorCode, Problem};
use lodge_block::NewFile;
use lodge_block::datastore::Datastore;
use lodge_store::Batch;
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::convert::with_changes;
use crate::core::blocking;
use crate::disks::{DiskRecord, check_size};
use crate::images::{checksum, datastore_problem, file_name, wrong_checksum};
use crate::operations::OperationHandle;
use crate::upload::{Expected, Receiver};
use crate::vms::DiskClaim;
use crate::{Caller, IfMatch, Manager};

/// A disk that nobody else uses until this is done with.
struct Target {
    disk: DiskRecord,
    /// Where it is.
    disks: Arc<Datastore>,
    sha256: Option<String>,
    claim: DiskClaim,
}

impl Manager {
    /// Brings a disk to where it was when the changes in `body` were made. The disk is the old or the new one at any moment; dropping the
    /// future before the end, or an error in `body`, leaves the old one.
    ///
    /// # Errors
    /// `InUse` while a guest runs with it; `InvalidContent` for what is no qcow2, or has the changes of a smaller disk; others as of
    /// an image's upload.
    pub async fn disk_apply(
        &self,
        caller: &Caller,
        key: &str,
        apply: DiskApply,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
    ) -> Result<Disk, Problem> {
        self.core.require_changeable()?;
        let sha256 = apply.sha256.as_deref().map(checksum).transpose()?;
        let disk = catalogue::find::<DiskRecord>(&self.core.snapshot(), key)?.value;
        let claims = &self.core.vms.claims;
        let claim = DiskClaim::new(claims, Uuid::now_v7(), &[(disk.id, false)]);
        let claim = claim.map_err(|_| {
            let detail = format!("the disk \"{}\" is in use", disk.name);
            Problem::new(ErrorCode::InUse, detail)
                .with_hint("stop the guest that runs with it; see GET /v1/operations, too")
        })?;
        let disks = self.core.datastores.folders(disk.datastore)?.disks;
        self.require_room_for(&disks, declared_len)?;
        let target = Target {
            disk,
            disks,
            sha256,
            claim,
        };
        let running = self
            .upload_operation(caller, "disk_apply", target.disk.target())
            .await?;
        let result = self
            .take_changes(caller, target, declared_len, body, &running.handle)
            .await;
        running.end(&result);
        result
    }

    async fn take_changes(
        &self,
        caller: &Caller,
        target: Target,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
        handle: &OperationHandle,
    ) -> Result<Disk, Problem> {
        let disks = target.disks.clone();
        let receiver = Receiver::start(disks.clone(), Expected::Changes);
        let received = self.receive(receiver, declared_len, body, handle).await?;
        let wanted = target.sha256.as_ref();
        if wanted.is_some_and(|expected| *expected != received.sha256) {
            return Err(wrong_checksum(&received.sha256));
        }
        let old = file_name(target.disk.id)?;
        let (new, size) = with_changes(disks, received.file, old, handle.clone()).await?;
        check_size(lodge_api::Size(size))
            .map_err(|problem| Problem::new(ErrorCode::InvalidContent, problem.detail))?;
        handle.commit_to_finish()?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move { manager.put(&caller, target, new, size).await })
            .await
    }

    /// Puts the file in the place of the old one. One that is longer than recorded is recorded at the next start at the latest.
    async fn put(
        &self,
        caller: &Caller,
        target: Target,
        new: NewFile,
        size: u64,
    ) -> Result<Disk, Problem> {
        let core = &self.core;
        let id = target.disk.id;
        let held = core
            .hold::<DiskRecord>(&id.to_string(), IfMatch::Any)
            .await?;
        let name = file_name(id)?;
        blocking(move || {
            new.replace(&name)
                .map_err(|error| datastore_problem(&error))
        })
        .await?;
        let record = held.old.value.with_size(size);
        let record = core.exchange(Batch::new(), &held.old, record).await?;
        core.make_known(caller, "disk_apply", record.value.target(), Change::Changed);
        drop(held);
        drop(target.claim);
        core.show_disk(record).await
    }
}
