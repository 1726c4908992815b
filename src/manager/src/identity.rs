//! Who this host is where several hosts meet: at targets of NVMe/TCP, and at servers of NFS. It stays while its data do.

use lodge_api::Problem;
use lodge_store::{Batch, Precondition, Record, Snapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue;

/// The only key of the table.
const KEY: &str = "host";

/// As stored.
#[derive(Debug, Serialize, Deserialize)]
struct IdentityRecord {
    id: Uuid,
}

impl Record for IdentityRecord {
    const TABLE: &'static str = "identity";
    const SCHEMA: u32 = 1;
}

/// The batch that gives the host an identity, where it has none. Those of firmware are not to be relied on: makers forget to change them.
pub(crate) fn missing(snapshot: &Snapshot) -> Result<Option<Batch>, Problem> {
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
pub(crate) fn of_host(snapshot: &Snapshot) -> Result<Uuid, Problem> {
    let record = catalogue::get::<IdentityRecord>(snapshot, KEY)?;
    let record = record.ok_or_else(|| Problem::not_found("identity", KEY))?;
    Ok(record.value.id)
}
