//! Backups that the host makes of a VM by itself: options of `lodge vm create` and `set`.

use clap::Args;
use lodge_api::Name;
use lodge_api::vm::Vm;
use serde_json::{Map, Value, json};

use super::vm_schedule::{minutes, time};

/// When backups are made of it by themselves.
#[derive(Debug, Args)]
#[command(next_help_heading = "Backups that the host makes of it by itself")]
pub(crate) struct BackupPlan {
    /// The target; `lodge backup target list` shows those there are
    #[arg(long, value_name = "TARGET")]
    backup_to: Option<Name>,
    /// Time from one to the next, like 6h, 1d or 1w; at least 5m
    #[arg(long, value_name = "TIME", value_parser = minutes)]
    backup_every: Option<u32>,
    /// How many of them stay, with those that they are made of; older ones are deleted [14]
    #[arg(long, value_name = "COUNT")]
    backup_keep: Option<u32>,
    /// Of so many one has all of the disks, and the others what changed [7]
    #[arg(long, value_name = "COUNT")]
    backup_full_every: Option<u32>,
    /// Make none any more; those there are stay
    #[arg(long, conflicts_with_all = ["backup_to", "backup_every", "backup_keep", "backup_full_every"])]
    no_backup_schedule: bool,
}

impl BackupPlan {
    /// The API's `backup_schedule`, if anything was given.
    pub(super) fn json(&self) -> Option<Value> {
        if self.no_backup_schedule {
            return Some(Value::Null);
        }
        let fields = [
            ("target", self.backup_to.as_ref().map(|value| json!(value))),
            ("every_minutes", self.backup_every.map(|value| json!(value))),
            ("keep", self.backup_keep.map(|value| json!(value))),
            (
                "full_every",
                self.backup_full_every.map(|value| json!(value)),
            ),
        ];
        let given: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        (!given.is_empty()).then_some(Value::Object(given))
    }
}

/// What `lodge vm show` says of it.
pub(super) fn row(vm: &Vm) -> Option<(&'static str, String)> {
    let schedule = vm.spec.backup_schedule.as_ref()?;
    let every = time(schedule.every_minutes);
    let (target, full, keep) = (&schedule.target, schedule.full_every, schedule.keep);
    let text = format!("to {target} every {every}, one of {full} in full, {keep} are kept");
    Some(("Backups", text))
}
