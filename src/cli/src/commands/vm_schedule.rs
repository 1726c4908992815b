//! Snapshots that are taken of a VM by itself: options of `lodge vm create` and `set`.

use clap::Args;
use lodge_api::vm::Vm;
use serde_json::{Map, Value, json};

const HOUR: u32 = 60;
const DAY: u32 = 24 * HOUR;
const WEEK: u32 = 7 * DAY;

/// When snapshots are taken of it by itself while it runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Snapshots that are taken by themselves while it runs")]
pub(crate) struct Schedule {
    /// Time from one to the next, like 15m, 6h, 1d or 1w; at least 5m
    #[arg(long, value_name = "TIME", value_parser = minutes)]
    snapshot_every: Option<u32>,
    /// How many of them stay; older ones are deleted [24]
    #[arg(long, value_name = "COUNT")]
    snapshot_keep: Option<u32>,
    /// Save memory too, from which the VM goes on instead of booting
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    snapshot_memory: Option<bool>,
    /// Take none any more; those there are stay
    #[arg(long, conflicts_with_all = ["snapshot_every", "snapshot_keep", "snapshot_memory"])]
    no_snapshot_schedule: bool,
}

impl Schedule {
    /// The API's `snapshot_schedule`, if anything was given.
    pub(super) fn json(&self) -> Option<Value> {
        if self.no_snapshot_schedule {
            return Some(Value::Null);
        }
        let fields = [
            (
                "every_minutes",
                self.snapshot_every.map(|value| json!(value)),
            ),
            ("keep", self.snapshot_keep.map(|value| json!(value))),
            ("memory", self.snapshot_memory.map(|value| json!(value))),
        ];
        let given: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        (!given.is_empty()).then_some(Value::Object(given))
    }
}

/// Minutes of a time like `6h`.
pub(super) fn minutes(text: &str) -> Result<u32, String> {
    let wrong = || "give a number and m, h, d or w, like 15m, 6h or 1d".to_owned();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "m" => 1,
        "h" => HOUR,
        "d" => DAY,
        "w" => WEEK,
        _ => return Err(wrong()),
    };
    let count: u32 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(unit).ok_or_else(wrong)
}

/// The same time, in the largest unit that fits.
pub(super) fn time(minutes: u32) -> String {
    let units = [(WEEK, "w"), (DAY, "d"), (HOUR, "h")];
    let fitting = units
        .into_iter()
        .find(|(unit, _)| minutes >= *unit && minutes.is_multiple_of(*unit));
    let (unit, letter) = fitting.unwrap_or((1, "m"));
    format!("{}{letter}", minutes / unit)
}

/// What `lodge vm show` says of it.
pub(super) fn row(vm: &Vm) -> Option<(&'static str, String)> {
    let schedule = vm.spec.snapshot_schedule.as_ref()?;
    let memory = if schedule.memory { ", with memory" } else { "" };
    let every = time(schedule.every_minutes);
    let text = format!("every {every}{memory}, {} are kept", schedule.keep);
    Some(("Snapshots", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [("15m", 15), ("6h", 360), ("1d", 1440), ("2w", 20160)] {
            assert_eq!(minutes(text), Ok(expected));
            assert_eq!(time(expected), text);
        }
        assert_eq!(time(90), "90m");
        for wrong in ["", "15", "m", "1.5h", "-1h", "1y", "5 m", "9999999w"] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }
}
