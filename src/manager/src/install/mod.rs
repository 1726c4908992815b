//! Lodge from a stick or a CD onto a disk of the host, and its data along with it.
//!
//! Where the data are in memory they move: they are copied while the host is up, and the manager then ends, copies what has changed
//! since, puts the disk in the place of the memory and is started anew by PID 1. From the moment the installation begins
//! nothing may be changed, so that nothing is acknowledged which the disk does not get.

mod handover;
mod mirror;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lodge_api::install::{DiskHealth, HostDisk, Install};
use lodge_api::operation::Operation;
use lodge_api::page::Page;
use lodge_api::system::StorageKind;
use lodge_api::{ErrorCode, Problem, Size};
use lodge_host::boot::{BootReport, DATA_FLAGS, DataStorage};
use lodge_host::disk::mount;
use lodge_host::install::{self, InstallError, Job, Medium, Step};
use lodge_host::system::Firmware;

use self::handover::Handover;
pub(crate) use self::handover::{Waiting, left_behind};
use crate::catalogue::{self, HOST};
use crate::core::{Core, blocking, internal};
use crate::disk_health::{Ask, Looked};
use crate::operations::OperationHandle;
use crate::{Caller, Manager};

/// The operation's kind.
pub(crate) const KIND: &str = "system_install";

/// What is to be done.
struct Plan {
    disk: install::HostDisk,
    medium: PathBuf,
    /// The data are in memory and move to the disk.
    move_data: bool,
    bios: bool,
    work: PathBuf,
}

impl Manager {
    /// `GET /v1/system/disks`.
    ///
    /// # Errors
    /// When the host does not tell.
    pub async fn host_disks(&self) -> Result<Page<HostDisk>, Problem> {
        let disks = self.core.look_at_disks(Ask::All).await?;
        Ok(Page {
            items: disks.into_iter().map(shown).collect(),
            next_page: None,
        })
    }

    /// `POST /v1/system:install`: puts Lodge on a disk of the host.
    ///
    /// # Errors
    /// `InvalidRequest` for a disk that is not there or not blank, `InUse` for one that is used, `WrongState` where
    /// nothing can be installed now.
    pub async fn system_install(
        &self,
        caller: &Caller,
        request: Install,
    ) -> Result<Operation, Problem> {
        let core = self.core.clone();
        core.require_installable()?;
        let planning = core.clone();
        let plan = blocking(move || planning.plan_install(&request)).await?;
        core.require_changeable()?;
        if core.installing.swap(true, Ordering::SeqCst) {
            return Err(being_installed());
        }
        caller.audit(KIND, HOST);
        let working = core.clone();
        let started = core
            .start_operation(caller, KIND, HOST.to_owned(), true, |handle| async move {
                let result = working.install(plan, &handle).await;
                working.installing.store(false, Ordering::SeqCst);
                result
            })
            .await;
        if started.is_err() {
            core.installing.store(false, Ordering::SeqCst);
        }
        started
    }

    /// Installs the host as its seed says, while its data are in memory.
    pub(crate) async fn install_by_seed(&self) {
        let core = &self.core;
        let seed = core.boot.as_ref().and_then(|boot| boot.seed.as_ref());
        let Some(wanted) = seed.and_then(|found| found.seed.install.clone()) else {
            return;
        };
        if !core.config.appliance || !core.data_in_memory() {
            return;
        }
        let request = Install {
            disk: wanted.disk,
            erase: wanted.erase,
        };
        if let Err(problem) = self.system_install(&Caller::manager(), request).await {
            tracing::error!("Lodge is not installed as the seed says: {problem}");
        }
    }

    /// Returns when the manager wants to be started anew.
    pub async fn wants_to_leave(&self) {
        self.core.leaving.cancelled().await;
    }
}

impl Core {
    fn require_installable(&self) -> Result<(), Problem> {
        let wrong = |detail: String| Problem::new(ErrorCode::WrongState, detail);
        if !self.config.appliance {
            return Err(wrong(
                "this server runs on an ordinary Linux host, which is installed already".to_owned(),
            ));
        }
        self.require_changeable()?;
        let running = self.operations.running();
        if running > 0 {
            return Err(wrong(format!("{running} operations are under way"))
                .with_hint("wait for them to end, or cancel them"));
        }
        let guests = self.vms.active();
        if guests > 0 && self.data_in_memory() {
            return Err(wrong(format!(
                "{guests} guests run, whose disks are in memory and are to move"
            ))
            .with_hint("stop the guests"));
        }
        Ok(())
    }

    pub(crate) fn data_in_memory(&self) -> bool {
        self.storage().kind == StorageKind::Ram
    }

    fn plan_install(&self, request: &Install) -> Result<Plan, Problem> {
        let disk = blank_disk(&request.disk, request.erase)?;
        let medium = install::find_medium()
            .map_err(|error| unknown_disks(&error))?
            .ok_or_else(|| problem(&InstallError::NoMedium))?;
        let firmware = self.boot.as_ref().map(|boot| boot.firmware);
        Ok(Plan {
            disk,
            medium,
            move_data: self.data_in_memory(),
            bios: firmware.unwrap_or_else(Firmware::detect) == Firmware::Bios,
            work: self.config.run_dir.join("install"),
        })
    }

    async fn install(
        self: &Arc<Self>,
        plan: Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let (core, watched) = (self.clone(), handle.clone());
        let handover = blocking(move || core.write_disk(&plan, &watched)).await?;
        let Some(handover) = handover else {
            return Ok(());
        };
        // The next manager says how it ends.
        self.handover.set(handover);
        self.leaving.cancel();
        std::future::pending().await
    }

    /// Writes the disk, whole unless the data have to follow.
    fn write_disk(
        &self,
        plan: &Plan,
        handle: &OperationHandle,
    ) -> Result<Option<Handover>, Problem> {
        let failed = |error: InstallError| problem(&error);
        let medium = Medium::open(&plan.medium, &plan.work.join("medium")).map_err(failed)?;
        handle.log(format!(
            "installing Lodge {} from {} on {} ({})",
            medium.contents().version,
            medium.device().display(),
            plan.disk.device.name,
            plan.disk.identity(),
        ));
        let job = Job {
            disk: &plan.disk,
            medium: &medium,
            with_data: plan.move_data,
            bios: plan.bios,
            work: &plan.work,
        };
        let installed = install::install(&job, &mut |step, done, total| {
            handle.progress(phase(step), done, total);
            if handle.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(failed)?;
        drop(medium);
        let Some(device) = installed.data() else {
            handle.commit_to_finish()?;
            installed.finish(None).map_err(failed)?;
            return Ok(None);
        };
        let at = plan.work.join("data");
        mount(&device.display().to_string(), &at, "xfs", DATA_FLAGS, "")
            .map_err(|error| internal(format!("{}: {error}", device.display())))?;
        let handover = Handover::new(installed, device, at, &self.config);
        handover.copy_datastores(handle)?;
        handle.commit_to_finish()?;
        Ok(Some(handover))
    }
}

pub(crate) fn phase(step: Step) -> &'static str {
    match step {
        Step::Checking => "checking the boot medium",
        Step::Writing => "writing the image",
        Step::Verifying => "reading the image back",
        Step::Formatting => "making the data filesystem",
    }
}

fn shown(Looked { disk, health }: Looked) -> HostDisk {
    let device = disk.device;
    HostDisk {
        name: device.name,
        serial: device.serial,
        model: device.model.unwrap_or_default(),
        size: Size(device.size),
        transport: device.transport,
        rotational: device.rotational,
        removable: device.removable,
        health: health.map(|health| DiskHealth {
            problems: health.problems,
            temperature_c: health.temperature,
            used_percent: health.used_percent,
            errors: health.errors,
            power_on_hours: health.power_on_hours,
        }),
        contents: disk.contents,
        in_use: disk.in_use,
    }
}

/// The disk of the host that a request names in its field `disk`.
pub(crate) fn named_disk(name: &str) -> Result<install::HostDisk, Problem> {
    let disks = install::host_disks().map_err(|error| unknown_disks(&error))?;
    let mut found = disks.into_iter().filter(|disk| disk.identity() == name);
    let first = found.next();
    if let (Some(first), Some(other)) = (&first, found.next()) {
        // A disk of another machine can say that it is any.
        let (one, two) = (&first.device.name, &other.device.name);
        let detail = format!("{one} and {two} have the same serial number");
        return Err(Problem::invalid("/disk", detail).with_hint("unplug or disconnect one of them"));
    }
    first.ok_or_else(|| {
        let detail = format!("no disk has the serial number \"{}\"", catalogue::shown(name));
        Problem::invalid("/disk", detail)
            .with_hint("`lodge system disks` lists them; a disk without a serial number is asked for by its name")
    })
}

/// The same, of which nothing is lost when it is written to, or nothing that may not be.
pub(crate) fn blank_disk(name: &str, erase: bool) -> Result<install::HostDisk, Problem> {
    let disk = named_disk(name)?;
    let device = &disk.device.name;
    if let Some(reason) = &disk.in_use {
        let detail = format!("the disk {device} cannot be written to: {reason}");
        return Err(Problem::new(ErrorCode::InUse, detail).with_pointer("/disk"));
    }
    if !disk.contents.is_empty() && !erase {
        let there = disk.contents.join("; ");
        let detail = format!("the disk {device} is not blank: {there}");
        return Err(Problem::invalid("/erase", detail)
            .with_hint("give \"erase\": true if all of it may be lost"));
    }
    Ok(disk)
}

pub(crate) fn unknown_disks(error: &std::io::Error) -> Problem {
    internal(format!("the disks of this host cannot be listed: {error}"))
}

/// The refusal of changes while the host is installed.
pub(crate) fn being_installed() -> Problem {
    Problem::new(
        ErrorCode::WrongState,
        "the host is being installed on a disk, and nothing is changed meanwhile",
    )
    .with_hint("wait for the operation to end, or cancel it")
}

fn problem(error: &InstallError) -> Problem {
    let detail = error.to_string();
    match error {
        InstallError::NoMedium => Problem::new(ErrorCode::WrongState, detail)
            .with_hint("plug the stick or the CD in again that this host was started from"),
        InstallError::Damaged { .. } => Problem::new(ErrorCode::WrongState, detail)
            .with_hint("write the ISO to the medium again"),
        InstallError::Unusable { .. } => Problem::invalid("/disk", detail),
        InstallError::Cancelled => crate::operations::cancelled(),
        InstallError::NotInstalled(_) | InstallError::Xfs(_) | InstallError::Host { .. } => {
            internal(detail)
        }
    }
}

/// Whether the data of this boot are on a disk.
pub(crate) fn data_on_disk(boot: Option<&BootReport>) -> bool {
    boot.is_some_and(|boot| matches!(boot.data, DataStorage::Disk { .. }))
}
