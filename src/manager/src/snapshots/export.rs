//! Snapshots on their way out, while their guests run on.

use lodge_api::Problem;
use lodge_api::image::{ExportFormat, SavedDiskParams};
use lodge_api::nvram::VmVariable;
use lodge_api::page::Page;
use lodge_block::foreign::{Backing, MAX_BACKING};
use lodge_store::Snapshot;
use uuid::Uuid;

use super::{Part, SnapshotRecord, files};
use crate::catalogue::{self, Object};
use crate::core::blocking;
use crate::export::{Source, Stored, file_name_of};
use crate::ova::export::Outgoing;
use crate::vms::nvram;
use crate::{Caller, Download, Manager};

impl Manager {
    /// The UEFI variables that the guest had; none if it had not begun with its own, or has no UEFI.
    pub async fn snapshot_nvram(&self, key: &str) -> Result<Page<VmVariable>, Problem> {
        let snapshot = catalogue::find::<SnapshotRecord>(&self.core.snapshot(), key)?.value;
        if !snapshot.variables {
            return Ok(Page {
                items: Vec::new(),
                next_page: None,
            });
        }
        let saved = self.core.saved.clone();
        blocking(move || nvram::all_of(files::open(&saved, snapshot.id, Part::Variables)?)).await
    }

    /// Sends a disk of a snapshot, by the name that it had then: all of it, or what is another since an earlier one.
    ///
    /// # Errors
    /// `NotFound`; `InvalidRequest` for parameters that do not go together, and for a snapshot without that disk.
    pub async fn snapshot_disk_export(
        &self,
        caller: &Caller,
        key: &str,
        disk: &str,
        params: SavedDiskParams,
    ) -> Result<Download, Problem> {
        let snapshot = self.core.snapshot();
        let record = catalogue::find::<SnapshotRecord>(&snapshot, key)?.value;
        let disks = record.spec.disks.iter().zip(&record.disks);
        let found = disks
            .enumerate()
            .find(|(_, (found, _))| found.disk.as_str() == disk);
        let (number, (found, id)) = found.ok_or_else(|| {
            Problem::not_found("disk", disk)
                .with_hint("`spec.disks` of the snapshot names those it has")
        })?;
        let format = format_of(&params)?;
        let (now, name) = (Stored::Saved(record.id, number), found.disk.clone());
        let file_name = file_name_of(&name, format);
        let source = match &params.since {
            None => Source::One(now, name, format),
            Some(since) => Source::Changes {
                now,
                base: earlier(&snapshot, since, *id)?,
                backing: params.backing.map(backing).transpose()?,
            },
        };
        self.export(
            caller,
            "snapshot_export",
            record.target(),
            file_name,
            source,
        )
        .await
    }

    /// Sends the guest of a snapshot with its disks, as they were then, as an OVA.
    ///
    /// # Errors
    /// `NotFound`; `InvalidRequest` for one that starts a kernel without firmware.
    pub async fn snapshot_export(&self, caller: &Caller, key: &str) -> Result<Download, Problem> {
        let record = catalogue::find::<SnapshotRecord>(&self.core.snapshot(), key)?.value;
        let (target, file_name) = (record.target(), format!("{}.ova", record.name));
        let disks = (0..record.disks.len()).map(|number| Stored::Saved(record.id, number));
        let outgoing = Outgoing::new(record.spec, disks.collect())?;
        let source = Source::Machine(outgoing.into());
        self.export(caller, "snapshot_export", target, file_name, source)
            .await
    }
}

/// Refuses parameters that do not go together.
fn format_of(params: &SavedDiskParams) -> Result<ExportFormat, Problem> {
    match (&params.since, params.format) {
        (None, format) if params.backing.is_none() => Ok(format.unwrap_or(ExportFormat::Raw)),
        (None, _) => Err(Problem::invalid(
            "?backing",
            "only an image of what is another since an earlier snapshot has a backing file",
        )
        .with_hint("give `since` as well, or leave it out")),
        (Some(_), None | Some(ExportFormat::Qcow2)) => Ok(ExportFormat::Qcow2),
        (Some(_), Some(_)) => Err(Problem::invalid(
            "?format",
            "what is another since an earlier snapshot is sent as qcow2 only",
        )
        .with_hint("leave it out, or leave `since` out for the whole disk")),
    }
}

/// The copy of a disk that an earlier snapshot has.
fn earlier(snapshot: &Snapshot, since: &str, disk: Uuid) -> Result<Stored, Problem> {
    let found = catalogue::find::<SnapshotRecord>(snapshot, since);
    let record = found
        .map_err(|problem| problem.with_pointer("?since"))?
        .value;
    let number = record.disks.iter().position(|other| *other == disk);
    let number = number.ok_or_else(|| {
        let detail = format!("the snapshot \"{}\" does not have this disk", record.name);
        Problem::invalid("?since", detail).with_hint("name an earlier snapshot of the same guest")
    })?;
    Ok(Stored::Saved(record.id, number))
}

/// A file that lies beside the one that names it: a path, or what QEMU takes for an address, could lead to anywhere.
fn backing(name: String) -> Result<Backing, Problem> {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
    if name.is_empty() || name.len() > MAX_BACKING || name.contains(odd) {
        let detail = "not the name of a file in the same folder";
        return Err(Problem::invalid("?backing", detail).with_hint(format!(
            "give 1 to {MAX_BACKING} bytes, without slashes and colons"
        )));
    }
    let qcow2 = std::path::Path::new(&name)
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("qcow2"));
    Ok(Backing { name, qcow2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backing_files_lie_beside() {
        for (name, qcow2) in [
            ("base.qcow2", true),
            ("Base.QCOW2", true),
            ("a b.raw", false),
        ] {
            let expected = Backing {
                name: name.to_owned(),
                qcow2,
            };
            assert_eq!(backing(name.to_owned()).unwrap(), expected);
        }
        for name in [
            "",
            "/etc/shadow",
            "../base",
            "nbd:unix",
            "json:{}",
            "a\nb",
            &"a".repeat(1024),
        ] {
            let problem = backing(name.to_owned()).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("?backing"), "{name}");
        }
    }
}
