//! What a VM gets of its host, as options of `lodge vm create` and `lodge vm set`, and what `lodge vm show` says about it.

use std::fmt::Display;
use std::str::FromStr;

use clap::Args;
use lodge_api::Processors;
use lodge_api::vm::{Vm, VmCpu};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What a VM gets of the host's processors; it takes effect at once, also while the VM runs.
#[derive(Debug, Args)]
pub(crate) struct CpuLimits {
    /// Weight when VMs want more processor time than there is, 1 to 10000, or none for the usual 100; at once
    #[arg(long, value_name = "SHARES")]
    cpu_shares: Option<Limit<u16>>,
    /// Most processor time in percent of one of the host's processors, like 150, or none; at once
    #[arg(long, value_name = "PERCENT")]
    cpu_limit: Option<Limit<Percent>>,
    /// The host's processors it runs on, like 0-3,8, or none for any; at once
    #[arg(long, value_name = "PROCESSORS")]
    cpu_affinity: Option<Limit<Processors>>,
}

impl CpuLimits {
    /// Adds what was given to the API's `cpu`.
    pub(super) fn add_to(&self, cpu: &mut Map<String, Value>) {
        add(cpu, "shares", self.cpu_shares.as_ref());
        add(cpu, "limit", self.cpu_limit.as_ref());
        add(cpu, "affinity", self.cpu_affinity.as_ref());
    }
}

fn add<T: Serialize>(fields: &mut Map<String, Value>, name: &str, limit: Option<&Limit<T>>) {
    if let Some(limit) = limit {
        fields.insert(name.to_owned(), json!(limit.0));
    }
}

/// A limit to be set, or to be lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit<T>(Option<T>);

impl<T: FromStr<Err: Display>> FromStr for Limit<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            value => match value.parse() {
                Ok(value) => Ok(Self(Some(value))),
                Err(error) => Err(format!("{error}; or write none")),
            },
        }
    }
}

/// A number that may have its unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Percent(u16);

impl FromStr for Percent {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_suffix('%').unwrap_or(text).parse().map(Self)
    }
}

/// What it gets of the host's processors, where that is not as usual.
pub(super) fn cpu_rows(cpu: &VmCpu) -> Vec<(&'static str, String)> {
    let rows = [
        ("CPU shares", cpu.shares.map(|shares| shares.to_string())),
        ("CPU limit", cpu.limit.map(|percent| format!("{percent} %"))),
        (
            "CPU affinity",
            cpu.affinity.as_ref().map(Processors::to_string),
        ),
    ];
    rows.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// The processor time it has used, and for how long it was held back.
pub(super) fn cpu_time(vm: &Vm) -> String {
    let seconds = |us: u64| format!("{:.1} s", us as f64 / 1e6);
    let used = seconds(vm.status.cpu_time_us);
    match vm.status.cpu_throttled_us {
        0 => used,
        throttled => format!("{used}, held back for {}", seconds(throttled)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_value_or_none() {
        assert_eq!("none".parse(), Ok(Limit::<u16>(None)));
        assert_eq!("7".parse(), Ok(Limit(Some(7_u16))));
        for text in ["150", "150%"] {
            assert_eq!(text.parse(), Ok(Limit(Some(Percent(150)))));
        }
        let error = "all".parse::<Limit<Processors>>().unwrap_err();
        assert!(error.contains("0-3,8"), "{error}");
        for text in ["", "-1", "1.5", "None"] {
            assert!(text.parse::<Limit<u16>>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_lifted_is_null_and_what_is_not_given_stays() {
        let limits = CpuLimits {
            cpu_shares: Some(Limit(None)),
            cpu_limit: None,
            cpu_affinity: Some("8,0-3".parse().unwrap()),
        };
        let mut cpu = Map::new();
        limits.add_to(&mut cpu);
        assert_eq!(
            Value::Object(cpu),
            json!({"shares": null, "affinity": "0-3,8"})
        );
    }
}
