//! Having the kernel export what is recorded.

use std::path::Path;

use lodge_api::{ErrorCode, Problem};
use lodge_host::nvmf::{self, TargetError};

use super::export::ExportRecord;
use super::registry::Applied;
use crate::core::{Core, blocking, internal};

impl Core {
    /// Has the kernel export all that is recorded and is not exported, such as one whose disk has come back.
    pub(super) async fn look_at_exports(&self) {
        let exporting = self.nvme.exporting.lock().await;
        for record in self.exports() {
            let applied = self.nvme.applied(record.id);
            let still = blocking(move || Ok(applied.is_some_and(|applied| is_so(&applied))));
            if still.await.unwrap_or(false) {
                continue;
            }
            // What happens is recorded there.
            let _ = self.apply_export(&record).await;
        }
        drop(exporting);
    }

    /// Has the kernel export one. The lock is held by the caller.
    pub(super) async fn apply_export(&self, record: &ExportRecord) -> Result<(), Problem> {
        let wanted = record.clone();
        let applied = blocking(move || apply(&wanted)).await;
        let now = match &applied {
            Ok(applied) => applied.clone(),
            Err(problem) => Applied::Failed(problem.detail.clone()),
        };
        let before = self.nvme.set_applied(record.id, now.clone());
        self.tell_of_export(record, before.as_ref(), &now);
        applied.map(drop)
    }

    fn tell_of_export(&self, record: &ExportRecord, before: Option<&Applied>, now: &Applied) {
        let name = &record.name;
        match (before, now) {
            (Some(Applied::Failed(before)), Applied::Failed(now)) if before == now => return,
            (_, Applied::Failed(problem)) => self.tell_problem(warning(record, problem)),
            (Some(Applied::Failed(_)), Applied::Active(..)) => {
                self.tell(format!("The NVMe export \"{name}\" is there again."));
            }
            (_, Applied::Active(..)) => return,
        }
        self.console_changed();
    }

    /// Has the kernel export one no longer. The lock is held by the caller.
    pub(super) async fn withdraw_export(&self, record: &ExportRecord) {
        self.nvme.forget_export(record.id);
        let nqn = record.nqn();
        let ended =
            blocking(move || nvmf::unexport(&nqn).map_err(|error| internal(error.to_string())));
        if let Err(problem) = ended.await {
            tracing::warn!(%problem, name = %record.name, "an export was not ended");
        }
    }

    pub(super) fn export_warnings(&self) -> Vec<String> {
        let failed = |record: ExportRecord| match self.nvme.applied(record.id)? {
            Applied::Failed(problem) => Some(warning(&record, &problem)),
            Applied::Active(..) => None,
        };
        self.exports().into_iter().filter_map(failed).collect()
    }
}

fn warning(record: &ExportRecord, problem: &str) -> String {
    let name = &record.name;
    format!("The NVMe export \"{name}\" cannot be used by others: {problem}.")
}

/// Whether it is still as it was made: the same disk, which was not taken out meanwhile, not even for a moment.
fn is_so(applied: &Applied) -> bool {
    match applied {
        Applied::Active(device, count) => {
            nvmf::exported_devices().contains(device) && count_of(device).as_ref() == Some(count)
        }
        Applied::Failed(_) => false,
    }
}

fn apply(record: &ExportRecord) -> Result<Applied, Problem> {
    let found = nvmf::find_export(record.id)
        .map_err(|error| internal(format!("the disks of this host: {error}")))?;
    let count = found.as_ref().and_then(|found| count_of(&found.path()));
    let Some((partition, count)) = found.zip(count) else {
        // The kernel would keep one that is not there any more.
        nvmf::unexport(&record.nqn()).map_err(|error| problem(&error))?;
        let detail = format!("its disk {} is not there", record.disk);
        return Err(Problem::new(ErrorCode::WrongState, detail));
    };
    let wanted = record.wanted(&partition)?;
    nvmf::export(&wanted).map_err(|error| problem(&error))?;
    Ok(Applied::Active(wanted.device, count))
}

/// The kernel's count of disks when this one came: it is another one when the disk is plugged in again.
fn count_of(device: &Path) -> Option<String> {
    let name = device.file_name()?;
    let path = Path::new("/sys/class/block").join(name);
    // A partition is a folder in its disk's.
    let disk = path.canonicalize().ok()?.parent()?.join("diskseq");
    let count = std::fs::read_to_string(disk).ok()?;
    Some(count.trim().to_owned())
}

fn problem(error: &TargetError) -> Problem {
    let detail = error.to_string();
    match error {
        TargetError::Unsupported(_) => Problem::new(ErrorCode::WrongState, detail),
        TargetError::Listen(..) => Problem::new(ErrorCode::WrongState, detail)
            .with_pointer("/address")
            .with_hint("give an address of this host that no other export overlaps; without one, all of IPv4 are taken"),
        TargetError::Failed(..) => internal(detail),
    }
}
