//! Exports as stored, and as the API shows them, new ones, and those that are not wanted any more.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use lodge_api::event::Change;
use lodge_api::nvme::{Anybody, NvmeExport, NvmeExportCreate, NvmeHosts, PORT};
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::disk::BlockDevice;
use lodge_host::nvmf::{self, Allowed, Export, Nqn};
use lodge_store::{Batch, Record, Snapshot, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::name_or_next;
use super::registry::Applied;
use crate::catalogue::{self, Object};
use crate::core::{Core, blocking, internal};
use crate::filter::Field;
use crate::install::{blank_disk, named_disk};
use crate::operations::OperationHandle;
use crate::{Caller, IfMatch, Manager};

/// Most exports, and most hosts that one allows.
const MOST: usize = 64;
const MOST_HOSTS: usize = 64;

/// Smallest disk, in bytes: less is no use to anybody.
const LEAST: u64 = 16 << 20;

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("disk", "/disk"),
    ("nqn", "/nqn"),
];

/// An export as stored. Its disk is found by the id of the partition, which is its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExportRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    /// What people call the disk by.
    pub(super) disk: String,
    pub(super) allowed_hosts: NvmeHosts,
    pub(super) address: IpAddr,
    pub(super) created_at: Timestamp,
}

impl Record for ExportRecord {
    const TABLE: &'static str = "nvme_exports";
    const SCHEMA: u32 = 1;
}

impl Object for ExportRecord {
    const KIND: &'static str = "NVMe export";
    const PATH: &'static str = "nvme-exports";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

/// An export that is about to be.
struct Plan {
    record: ExportRecord,
    /// The disk, if it has to be made an export.
    make: Option<BlockDevice>,
}

impl ExportRecord {
    /// What the kernel is to be told, once the partition is found.
    pub(super) fn wanted(&self, partition: &BlockDevice) -> Result<Export, Problem> {
        Ok(Export {
            id: self.id,
            device: partition.path(),
            allowed: allowed(&self.allowed_hosts)?,
            listen: SocketAddr::new(self.address, PORT),
        })
    }

    pub(super) fn nqn(&self) -> Nqn {
        Nqn::of_uuid(self.id)
    }
}

fn allowed(hosts: &NvmeHosts) -> Result<Allowed, Problem> {
    let NvmeHosts::These(names) = hosts else {
        return Ok(Allowed::Any);
    };
    if names.is_empty() || names.len() > MOST_HOSTS {
        let detail = format!("1 to {MOST_HOSTS} hosts are needed, or \"any\"");
        return Err(Problem::invalid("/allowed_hosts", detail).with_hint(
            "`lodge system show` of the other host shows its NVMe name, as does /etc/nvme/hostnqn of other systems",
        ));
    }
    let mut hosts = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let pointer = format!("/allowed_hosts/{at}");
        let nqn: Nqn = name
            .parse()
            .map_err(|error| Problem::invalid(&pointer, format!("{error}")))?;
        if hosts.contains(&nqn) {
            return Err(Problem::invalid(&pointer, "the host is there twice"));
        }
        hosts.push(nqn);
    }
    Ok(Allowed::Hosts(hosts))
}

impl Core {
    pub(super) fn exports(&self) -> Vec<ExportRecord> {
        let all = catalogue::list::<ExportRecord>(&self.snapshot());
        all.into_iter().map(|record| record.value).collect()
    }

    fn export_of(&self, record: &Versioned<ExportRecord>) -> NvmeExport {
        let export = &record.value;
        let applied = self.nvme.applied(export.id);
        let shown = Export {
            id: export.id,
            device: Default::default(),
            allowed: Allowed::Any,
            listen: SocketAddr::new(export.address, PORT),
        };
        NvmeExport {
            id: export.id,
            name: export.name.clone(),
            disk: export.disk.clone(),
            nqn: export.nqn().to_string(),
            serial: shown.serial(),
            allowed_hosts: export.allowed_hosts.clone(),
            address: export.address,
            port: PORT,
            active: matches!(applied, Some(Applied::Active(..))),
            problem: match applied {
                Some(Applied::Failed(problem)) => Some(problem),
                Some(Applied::Active(..)) | None => None,
            },
            created_at: export.created_at,
            revision: record.revision,
        }
    }

    fn plan_export(&self, create: NvmeExportCreate) -> Result<Plan, Problem> {
        let snapshot = self.snapshot();
        let name = name_or_next::<ExportRecord>(&snapshot, create.name, "export")?;
        let address = create.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if address.is_multicast() {
            let detail = "no host has that address";
            return Err(Problem::invalid("/address", detail));
        }
        allowed(&create.allowed_hosts)?;
        if catalogue::list::<ExportRecord>(&snapshot).len() >= MOST {
            let detail = format!("a host has at most {MOST} NVMe exports");
            return Err(Problem::new(ErrorCode::InsufficientResources, detail));
        }
        let found = named_disk(&create.disk)?.device;
        if found.is_remote() {
            let detail = format!("the disk {} is in another machine", found.name);
            return Err(Problem::invalid("/disk", detail)
                .with_hint("connect to that one, or export the disk there to more hosts"));
        }
        let kept = if create.erase {
            None
        } else {
            nvmf::export_of(&found).map_err(|error| internal(format!("{}: {error}", found.name)))?
        };
        // One that was exported before is taken as it is, unless it is used.
        let disk = blank_disk(&create.disk, create.erase || kept.is_some())?.device;
        if disk.size < LEAST {
            return Err(Problem::invalid("/disk", "the disk is too small"));
        }
        if let Some(known) = kept.map(|id| require_unknown(&snapshot, id)) {
            known?;
        }
        Ok(Plan {
            record: ExportRecord {
                id: kept.unwrap_or_else(Uuid::new_v4),
                name,
                disk: create.disk,
                allowed_hosts: create.allowed_hosts,
                address,
                created_at: Timestamp::now(),
            },
            make: kept.is_none().then_some(disk),
        })
    }

    async fn make_export(
        self: &Arc<Self>,
        caller: &Caller,
        plan: Plan,
        handle: &OperationHandle,
    ) -> Result<(), Problem> {
        let record = plan.record;
        let exporting = self.nvme.exporting.lock().await;
        if let Some(disk) = plan.make {
            handle.progress("preparing the disk", 0, 2);
            let id = record.id;
            blocking(move || {
                nvmf::make_export(&disk, id)
                    .map(drop)
                    .map_err(|error| cannot_be_made(&disk, &error))
            })
            .await?;
        }
        handle.progress("exporting", 1, 2);
        let made = async {
            self.apply_export(&record).await?;
            let _changing = self.catalogue.lock().await;
            catalogue::require_free::<ExportRecord>(&self.snapshot(), &record.name)?;
            self.add(&record).await.map(drop)
        };
        if let Err(problem) = made.await {
            self.withdraw_export(&record).await;
            return Err(problem);
        }
        drop(exporting);
        let target = record.target();
        self.make_known(caller, "nvmeexport_create", target, Change::Created);
        Ok(())
    }
}

fn cannot_be_made(disk: &BlockDevice, error: &std::io::Error) -> Problem {
    let detail = format!("{}: {error}", disk.name);
    match error.kind() {
        std::io::ErrorKind::ResourceBusy => {
            Problem::new(ErrorCode::InUse, detail).with_pointer("/disk")
        }
        _ => internal(detail),
    }
}

fn require_unknown(snapshot: &Snapshot, id: Uuid) -> Result<(), Problem> {
    let known = catalogue::find_optional::<ExportRecord>(snapshot, &id.to_string())?;
    known.map_or(Ok(()), |known| {
        let detail = format!("it is the NVMe export \"{}\"", known.value.name);
        Err(Problem::new(ErrorCode::InUse, detail).with_pointer("/disk"))
    })
}

impl Manager {
    /// By name. Filter fields: `id name disk nqn`.
    ///
    /// # Errors
    /// `InvalidRequest` for wrong parameters.
    pub fn nvme_export_list(&self, params: &ListParams) -> Result<Page<NvmeExport>, Problem> {
        let view = |record: &_| self.core.export_of(record);
        catalogue::page(&self.core.snapshot(), params, FIELDS, view, |view| {
            &view.name
        })
    }

    /// One export, by name or id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn nvme_export_view(&self, key: &str) -> Result<NvmeExport, Problem> {
        let record = catalogue::find(&self.core.snapshot(), key)?;
        Ok(self.core.export_of(&record))
    }

    /// Lets others use a disk of this host, now and whenever the host starts. The operation's target is `/v1/nvme-exports/NAME`.
    ///
    /// # Errors
    /// `InvalidRequest` for a disk that is not there or not blank, `InUse` for one that is used.
    pub async fn nvme_export_create(
        &self,
        caller: &Caller,
        create: NvmeExportCreate,
    ) -> Result<Operation, Problem> {
        self.core.require_changeable()?;
        let planning = self.core.clone();
        let plan = blocking(move || planning.plan_export(create)).await?;
        if plan.record.allowed_hosts == NvmeHosts::Any(Anybody::Any) {
            tracing::warn!(name = %plan.record.name, "everybody who reaches this host may use an export");
        }
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let target = plan.record.target();
            caller.audit("nvmeexport_create", &target);
            let (working, asking) = (core.clone(), caller.clone());
            let work =
                move |handle| async move { working.make_export(&asking, plan, &handle).await };
            core.start_operation(&caller, "nvmeexport_create", target, false, work)
                .await
        })
        .await
    }

    /// Others lose it at once. What they have on it stays.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn nvme_export_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            // In this order everywhere.
            let _exporting = core.nvme.exporting.lock().await;
            let held = core.hold::<ExportRecord>(&key, if_match).await?;
            let record = held.old.value.clone();
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, &held.old)?;
            core.commit(batch).await?;
            drop(held);
            core.withdraw_export(&record).await;
            let target = record.target();
            core.make_known(&caller, "nvmeexport_delete", target, Change::Deleted);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_allowed_is_checked() {
        let these = |names: &[&str]| {
            NvmeHosts::These(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let pointer = |names: &[&str]| allowed(&these(names)).unwrap_err().pointer.unwrap();
        assert_eq!(pointer(&[]), "/allowed_hosts");
        let one = "nqn.2014-08.org:one";
        assert_eq!(pointer(&[one, "../x"]), "/allowed_hosts/1");
        assert_eq!(pointer(&[one, one]), "/allowed_hosts/1");
        let hosts = allowed(&these(&[one])).unwrap();
        assert_eq!(hosts, Allowed::Hosts(vec![one.parse().unwrap()]));
        let any = allowed(&NvmeHosts::Any(Anybody::Any)).unwrap();
        assert_eq!(any, Allowed::Any);
    }
}
