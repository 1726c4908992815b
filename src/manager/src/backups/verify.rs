//! Seeing whether backups are good: whether their files are what was written, and whether a guest of them boots.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use lodge_api::backup::{BackupRestore, BackupVerify};
use lodge_api::operation::Operation;
use lodge_api::vm::{ConsoleParams, NicLink, OnCrash, VmState, Watchdog};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Precondition, Record};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::listing;
use super::make::or_cancelled;
use super::place::{Folder, broke_off};
use super::record::{self, BackupRecord, Verified};
use super::restore::{damaged, entry};
use crate::catalogue;
use crate::core::internal;
use crate::operations::OperationHandle;
use crate::sessions::hex;
use crate::vms::{self, VmRecord};
use crate::{Caller, IfMatch, Manager};

/// Between two looks at a guest that boots.
const LOOK: Duration = Duration::from_millis(500);

/// Seconds for a sign of life unless told otherwise.
const PATIENCE: u32 = 300;

/// How long a guest that was ended may take to be gone.
const END: Duration = Duration::from_secs(30);

/// A guest that was made to be looked at, and is to be removed. One that a manager has left is removed by the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trial {
    vm: Uuid,
    disks: Vec<Uuid>,
}

impl Record for Trial {
    const TABLE: &'static str = "backup_trials";
    const SCHEMA: u32 = 1;
}

/// A file that a backup needs.
struct Needed {
    file: String,
    bytes: Option<u64>,
    sha256: Option<String>,
}

impl Manager {
    /// Reads all files of a backup, and those of the backups that it is made of, and compares them with their checksums; if it is wanted, boots a
    /// guest of it. What was found is in the backup's record. The operation's target is `/v1/backups/ID`.
    ///
    /// # Errors
    /// `NotFound`, `InvalidRequest`. What is found wrong is the operation's.
    pub async fn backup_verify(
        &self,
        caller: &Caller,
        key: &str,
        verify: BackupVerify,
    ) -> Result<Operation, Problem> {
        let backup = record::find(&self.core.snapshot(), key)?.value;
        let seconds = verify.timeout_s.unwrap_or(PATIENCE);
        if !(10..=3600).contains(&seconds) {
            let detail = format!("{seconds} is out of range");
            return Err(Problem::invalid("/timeout_s", detail).with_hint("give 10 to 3600 seconds"));
        }
        let busy = self.core.backups.reading(backup.target, backup.vm_id)?;
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let target = listing::path(&backup);
            caller.audit("backup_verify", &target);
            let (working, asking) = (manager.clone(), caller.clone());
            let boot = verify.boot.then(|| Duration::from_secs(seconds.into()));
            let work = move |handle: OperationHandle| async move {
                let _busy = busy;
                working.verify(&asking, &backup, boot, &handle).await
            };
            manager
                .core
                .start_operation(&caller, "backup_verify", target, true, work)
                .await
        })
        .await
    }

    async fn verify(
        &self,
        caller: &Caller,
        backup: &BackupRecord,
        boot: Option<Duration>,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let folder = or_cancelled(handle, self.folder_with(backup)).await?;
        let mut found = or_cancelled(handle, read_all(&folder, backup, handle)).await;
        if let (Ok(read), Some(patience)) = (&found, boot) {
            let booted = self.boot_trial(caller, &folder, backup, patience, handle);
            found = booted.await.map(|sign| format!("{read}; {sign}"));
        }
        let verified = match &found {
            Ok(text) => {
                handle.log(text);
                Some((true, text.clone()))
            }
            Err(problem) if says_bad(problem) => Some((false, problem.detail.clone())),
            // It is not known how it is.
            Err(_) => None,
        };
        if let Some((good, found)) = verified {
            let at = Timestamp::now();
            let verified = Verified { at, good, found };
            self.core.note_verified(backup.id, verified).await?;
        }
        found.map(drop)
    }

    /// Boots a guest of a backup until its system shows that it lives, and removes it again.
    async fn boot_trial(
        &self,
        caller: &Caller,
        folder: &Folder,
        backup: &BackupRecord,
        patience: Duration,
        handle: &OperationHandle,
    ) -> Result<String, Problem> {
        let digits = Uuid::new_v4().simple().to_string();
        let name: Name = format!("verify-{}", &digits[..12])
            .parse()
            .map_err(|_| internal("no name for a guest"))?;
        let restore = BackupRestore {
            name: Some(name),
            datastore: None,
        };
        let plan = self.plan_restore(folder, backup, &restore);
        let mut plan = or_cancelled(handle, plan).await?;
        let spec = plan.spec();
        spec.description = format!("Made to verify backup {} of {}", backup.number, backup.vm);
        spec.autostart = false;
        spec.on_crash = OnCrash::Stop;
        spec.watchdog = Watchdog::default();
        for nic in &mut spec.nics {
            nic.link = NicLink::Down;
        }
        let by_firmware = spec.boot.kernel.is_none();
        let trial = Trial {
            vm: plan.vm(),
            disks: plan.disks().collect(),
        };
        self.note_trial(&trial).await?;
        // Such an operation can be cancelled to its end; what it makes goes anyway.
        let lived = async {
            self.restore_uncommitted(caller, folder, &plan, handle)
                .await?;
            handle.progress("waiting for a sign of life", 0, 1);
            vms::start(&self.core, trial.vm).await?;
            self.sign_of_life(caller, trial.vm, by_firmware, patience)
                .await
        };
        let lived = or_cancelled(handle, lived).await;
        self.remove_trial(caller, &trial).await?;
        // Disks that have no records yet.
        self.take_back(&plan).await?;
        lived
    }

    /// Waits for what only a running system does: it has the memory balloon's driver, which tells of its memory; or writes to its serial port, where
    /// no firmware does.
    async fn sign_of_life(
        &self,
        caller: &Caller,
        vm: Uuid,
        by_firmware: bool,
        patience: Duration,
    ) -> Result<String, Problem> {
        let watched = async {
            loop {
                let observed = self.core.vms.observed(vm);
                if observed.panicked_at.is_some() {
                    return Err(no_life("its system said that it has crashed"));
                }
                if matches!(observed.state, VmState::Stopped | VmState::Crashed) {
                    let reason = observed
                        .reason
                        .unwrap_or_else(|| "it powered off".to_owned());
                    return Err(no_life(&format!("the guest ended: {reason}")));
                }
                if observed.guest_memory().is_some() {
                    return Ok("booted: its system has begun with the balloon's driver".to_owned());
                }
                sleep(LOOK).await;
            }
        };
        let spoken = async {
            if by_firmware {
                return std::future::pending().await;
            }
            let params = ConsoleParams::default();
            let mut console = self.vm_console(caller, &vm.to_string(), params).await?;
            match console.read_u8().await {
                Ok(_) => Ok("booted: its system writes to the serial port".to_owned()),
                // The other one knows why it ended.
                Err(_) => std::future::pending().await,
            }
        };
        let sign = async {
            tokio::select! {
                sign = watched => sign,
                sign = spoken => sign,
            }
        };
        timeout(patience, sign).await.unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            Err(no_life(&format!(
                "no sign of life within {seconds} seconds"
            )))
        })
    }

    async fn note_trial(&self, trial: &Trial) -> Result<(), Problem> {
        let mut batch = Batch::new();
        batch
            .put(trial.vm.to_string(), trial, Precondition::Any)
            .map_err(|error| catalogue::record_problem(&error))?;
        self.core.commit(batch).await.map(drop)
    }

    /// Removes guests that an earlier manager was looking at.
    pub(super) async fn remove_trials(&self) {
        for (_, trial) in self.core.snapshot().list::<Trial>() {
            let removed = self.remove_trial(&Caller::manager(), &trial.value).await;
            if let Err(problem) = removed {
                tracing::warn!(%problem, "a guest that was made to verify a backup stays");
            }
        }
    }

    async fn remove_trial(&self, caller: &Caller, trial: &Trial) -> Result<(), Problem> {
        let key = trial.vm.to_string();
        let there = catalogue::find_optional::<VmRecord>(&self.core.snapshot(), &key)?;
        if there.is_some() {
            if self.core.vms.is_active(trial.vm) {
                vms::kill(&self.core, trial.vm).await?;
            }
            let gone = async {
                while self.core.vms.is_active(trial.vm) {
                    sleep(LOOK).await;
                }
            };
            timeout(END, gone)
                .await
                .map_err(|_| internal("a guest that was made to verify a backup does not end"))?;
            self.vm_delete(caller, &key, IfMatch::Any).await?;
        }
        for disk in &trial.disks {
            match self
                .disk_delete(caller, &disk.to_string(), IfMatch::Any)
                .await
            {
                Err(problem) if problem.code != ErrorCode::NotFound => return Err(problem),
                _ => {}
            }
        }
        let mut batch = Batch::new();
        batch
            .delete::<Trial>(&key, Precondition::Any)
            .map_err(|error| catalogue::record_problem(&error))?;
        self.core.commit(batch).await.map(drop)
    }
}

/// Reads all that a backup needs.
async fn read_all(
    folder: &Folder,
    backup: &BackupRecord,
    handle: &OperationHandle,
) -> Result<String, Problem> {
    let (catalog, entry) = entry(folder, backup).await?;
    let mut needed = Vec::new();
    for file in [Some(&entry.configuration), entry.variables.as_ref()] {
        needed.extend(file.map(|file| Needed {
            file: file.clone(),
            bytes: None,
            sha256: entry.checksums.get(file).cloned(),
        }));
    }
    for disk in entry.disks.keys() {
        let files = catalog.chain(&entry, disk).map_err(damaged)?;
        needed.extend(files.into_iter().map(|file| Needed {
            file: file.file.clone(),
            bytes: Some(file.bytes),
            sha256: file.sha256.clone(),
        }));
    }
    let total = needed.iter().filter_map(|file| file.bytes).sum();
    let (mut done, mut without) = (0, 0);
    for file in &needed {
        if file.sha256.is_none() {
            without += 1;
        }
        done = read_one(folder, file, done, total, handle).await?;
    }
    let count = needed.len();
    Ok(match without {
        0 => format!("{count} files are what was written"),
        without => {
            format!("{count} files are there, {without} of them without a checksum to compare with")
        }
    })
}

async fn read_one(
    folder: &Folder,
    needed: &Needed,
    before: u64,
    total: u64,
    handle: &OperationHandle,
) -> Result<u64, Problem> {
    let mut incoming = folder.open(&needed.file).await?;
    let (mut bytes, mut hash) = (0_u64, Sha256::new());
    while let Some(piece) = incoming
        .pieces
        .try_next()
        .await
        .map_err(|e| broke_off(&e))?
    {
        bytes += piece.len() as u64;
        hash.update(&piece);
        let done = before.saturating_add(bytes).min(total);
        handle.progress("reading", done, total);
    }
    let other = |what: &str| {
        let detail = format!("{} is not what was written: it has {what}", needed.file);
        Problem::new(ErrorCode::ChecksumMismatch, detail)
            .with_hint("do not rely on this backup; make a new one with all of the disks")
    };
    if needed.bytes.is_some_and(|wanted| wanted != bytes) {
        return Err(other(&format!("{bytes} bytes")));
    }
    let sha256 = hex(&hash.finalize());
    if needed
        .sha256
        .as_ref()
        .is_some_and(|wanted| *wanted != sha256)
    {
        return Err(other("another checksum"));
    }
    Ok(match needed.bytes {
        Some(_) => before.saturating_add(bytes),
        None => before,
    })
}

fn no_life(detail: &str) -> Problem {
    Problem::new(
        ErrorCode::GuestTimeout,
        format!("a guest of it does not boot: {detail}"),
    )
    .with_hint("restore it under another name, and look at its screen")
}

/// Whether it is the backup that is bad, and not the look at it that failed.
fn says_bad(problem: &Problem) -> bool {
    matches!(
        problem.code,
        ErrorCode::ChecksumMismatch
            | ErrorCode::InvalidContent
            | ErrorCode::NotFound
            | ErrorCode::GuestTimeout
    )
}
