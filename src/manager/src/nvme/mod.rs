//! NVMe over TCP: disks of other machines, and disks of this host for others.
//!
//! Both are recorded, and then the kernel's: connections and exports go on while the manager is away, and are made again when the host starts.
//! A connection that is interrupted the kernel makes again; one that the target has ended, or that the kernel gave up, the manager does.

mod attach;
mod connect;
mod connection;
mod export;
mod export_apply;
mod follow;
mod refusal;
mod registry;

pub(crate) use self::connection::ConnectionRecord;
pub(crate) use self::export::ExportRecord;
pub(crate) use self::registry::Nvme;

use std::collections::BTreeSet;

use lodge_api::{Name, Problem};
use lodge_store::Snapshot;

use crate::catalogue::{self, Object};
use crate::core::internal;

/// The name that a request gives, which is free, or the first free one with that beginning.
fn name_or_next<O: Object>(
    snapshot: &Snapshot,
    wanted: Option<Name>,
    beginning: &str,
) -> Result<Name, Problem> {
    if let Some(name) = wanted {
        catalogue::require_free::<O>(snapshot, &name)?;
        return Ok(name);
    }
    let all = catalogue::list::<O>(snapshot).into_iter();
    let taken: BTreeSet<String> = all.map(|record| record.value.name().to_string()).collect();
    let mut names = (1..=taken.len() + 1).map(|number| format!("{beginning}-{number}"));
    let name = names.find(|name| !taken.contains(name));
    name.and_then(|name| name.parse().ok())
        .ok_or_else(|| internal("no name is free"))
}
