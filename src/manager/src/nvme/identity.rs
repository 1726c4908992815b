//! Who this host is to targets. It stays while its data do.

use lodge_api::Problem;
use lodge_host::nvmf::HostIdentity;
use lodge_store::{Batch, Precondition, Record, Snapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue;
use crate::core::Core;

/// The only key of the table.
const KEY: &str = "host";

/// As stored.
#[derive(Debug, Serialize, Deserialize)]
struct IdentityRecord {
    id: Uuid,
}

impl Record for IdentityRecord {
    const TABLE: &'static str = "nvme_identity";
    const SCHEMA: u32 = 1;
}

/// The batch that gives the host an identity, where it has none. Those of firmware are not to be relied on: makers forget to change them.
pub(crate) fn missing_identity(snapshot: &Snapshot) -> Result<Option<Batch>, Problem> {
    if catalogue::get::<IdentityRecord>(snapshot, KEY)?.is_some() {
        return Ok(None);
    }
    let mut batch = Batch::new();
    let record = IdentityRecord { id: Uuid::new_v4() };
    batch
        .put(KEY, &record, Precondition::Absent)
        .map_err(|error| catalogue::record_problem(&error))?;
    Ok(Some(batch))
}

/// Who it is.
pub(crate) fn identity(snapshot: &Snapshot) -> Result<HostIdentity, Problem> {
    let record = catalogue::get::<IdentityRecord>(snapshot, KEY)?;
    let record = record.ok_or_else(|| Problem::not_found("NVMe identity", KEY))?;
    Ok(HostIdentity(record.value.id))
}

impl Core {
    /// The name by which targets allow it.
    pub(crate) fn nvme_nqn(&self) -> String {
        self.nvme.host.nqn().to_string()
    }
}
