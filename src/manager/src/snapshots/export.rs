//! Snapshots on their way out, while their guests run on.

use lodge_api::Problem;
use lodge_api::image::ExportFormat;

use super::SnapshotRecord;
use crate::catalogue::{self, Object};
use crate::export::{Source, Stored, file_name_of};
use crate::ova::export::Outgoing;
use crate::{Caller, Download, Manager};

impl Manager {
    /// Sends a disk of a snapshot, by the name that it had then.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn snapshot_disk_export(
        &self,
        caller: &Caller,
        key: &str,
        disk: &str,
        format: ExportFormat,
    ) -> Result<Download, Problem> {
        let record = catalogue::find::<SnapshotRecord>(&self.core.snapshot(), key)?.value;
        let disks = record.spec.disks.iter().take(record.disks.len());
        let found = disks
            .enumerate()
            .find(|(_, found)| found.disk.as_str() == disk);
        let (number, found) = found.ok_or_else(|| {
            Problem::not_found("disk", disk)
                .with_hint("`spec.disks` of the snapshot names those it has")
        })?;
        let file_name = file_name_of(&found.disk, format);
        let stored = Stored::Saved(record.id, number);
        let source = Source::One(stored, found.disk.clone(), format);
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
