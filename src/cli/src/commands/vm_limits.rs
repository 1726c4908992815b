//! What a VM gets of its host and does with its disks and network interfaces, as options of `lodge vm create`, `set`, `disk set` and `nic set`, and
//! what `lodge vm show` says about it.

use std::fmt::Display;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use lodge_api::vm::{NicLink, OnDiskError, Vm, VmCpu, VmDisk, VmDiskLimits, VmNic, VmNicLimits};
use lodge_api::{Processors, Size};
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

/// What changes about a disk of a VM: most that the VM does with it, and what becomes of it when it fails.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct DiskChanges {
    /// Operations in a second, or none
    #[arg(long, value_name = "COUNT")]
    iops: Option<Limit<u32>>,
    /// Operations that it may do at once after a rest [a tenth of the above]
    #[arg(long, value_name = "COUNT")]
    iops_burst: Option<Limit<u32>>,
    /// Bytes in a second, like 50MiB, or none
    #[arg(long, value_name = "SIZE")]
    bandwidth: Option<Limit<Size>>,
    /// Bytes that it may move at once after a rest [a tenth of the above]
    #[arg(long, value_name = "SIZE")]
    bandwidth_burst: Option<Limit<Size>>,
    /// When the disk is full or fails: pause the VM until it is resumed, or report it to the VM
    #[arg(long, value_name = "WHAT")]
    on_error: Option<OnError>,
}

/// What is done when a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    Pause,
    Report,
}

impl DiskChanges {
    /// Makes the changes.
    pub(super) fn apply(&self, disk: &mut VmDisk) {
        disk.limits = self.changed(disk.limits);
        match self.on_error {
            Some(OnError::Pause) => disk.on_error = OnDiskError::Pause,
            Some(OnError::Report) => disk.on_error = OnDiskError::Report,
            None => {}
        }
    }

    /// The limits a disk has with these changes. A limit that is lifted takes its burst along.
    fn changed(&self, mut limits: VmDiskLimits) -> VmDiskLimits {
        change(&mut limits.iops, self.iops.as_ref());
        change(&mut limits.iops_burst, self.iops_burst.as_ref());
        change(&mut limits.bandwidth, self.bandwidth.as_ref());
        change(&mut limits.bandwidth_burst, self.bandwidth_burst.as_ref());
        if self.iops == Some(Limit(None)) {
            limits.iops_burst = None;
        }
        if self.bandwidth == Some(Limit(None)) {
            limits.bandwidth_burst = None;
        }
        limits
    }
}

/// What changes about a network interface of a VM: most that it moves, and whether its cable is plugged in.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct NicChanges {
    /// Plug its cable in, or pull it
    #[arg(long, value_name = "STATE")]
    link: Option<Link>,
    /// To the VM, in Mbit/s, or none
    #[arg(long, value_name = "MBPS")]
    receive: Option<Limit<u32>>,
    /// From the VM, in Mbit/s, or none
    #[arg(long, value_name = "MBPS")]
    transmit: Option<Limit<u32>>,
}

/// The cable of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Link {
    Up,
    Down,
}

impl NicChanges {
    /// Makes the changes.
    pub(super) fn apply(&self, nic: &mut VmNic) {
        nic.limits = self.changed(nic.limits);
        match self.link {
            Some(Link::Up) => nic.link = NicLink::Up,
            Some(Link::Down) => nic.link = NicLink::Down,
            None => {}
        }
    }

    /// The limits an interface has with these changes.
    fn changed(&self, mut limits: VmNicLimits) -> VmNicLimits {
        change(&mut limits.receive_mbps, self.receive.as_ref());
        change(&mut limits.transmit_mbps, self.transmit.as_ref());
        limits
    }
}

/// A word of a network interface's description that is a limit, like `receive=100`.
pub(super) fn nic_word(word: &str) -> Option<(&'static str, Value)> {
    let (field, value) = word.split_once('=')?;
    let rate = value
        .parse::<u32>()
        .map_or_else(|_| json!(value), |rate| json!(rate));
    Some(match field {
        "receive" => ("receive_mbps", rate),
        "transmit" => ("transmit_mbps", rate),
        _ => return None,
    })
}

/// What a network interface has that most have not, in one line.
pub(super) fn nic_settings(nic: &VmNic) -> String {
    let queues = match nic.queues {
        None | Some(1) => String::new(),
        Some(count) => format!(" ({count} pairs of queues)"),
    };
    let limits = nic_limits(&nic.limits);
    match nic.link {
        NicLink::Up => format!("{queues}{limits}"),
        NicLink::Down => format!("{queues}{limits} (link down)"),
    }
}

/// A network interface's limits in one line; nothing where it has none.
fn nic_limits(limits: &VmNicLimits) -> String {
    let rate = |rate: Option<u32>, what: &str| rate.map(|rate| format!("{what} {rate} Mbit/s"));
    let parts = [
        rate(limits.receive_mbps, "receives"),
        rate(limits.transmit_mbps, "sends"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(" {} at most", parts.join(" and ")),
    }
}

/// A word of a disk's description that is a limit, like `iops=500`: its field, and the value as the API has it.
pub(super) fn disk_word(word: &str) -> Option<(&'static str, Value)> {
    let (field, value) = word.split_once('=')?;
    let count = || {
        value
            .parse::<u32>()
            .map_or_else(|_| json!(value), |count| json!(count))
    };
    Some(match field {
        "iops" => ("iops", count()),
        "iops_burst" => ("iops_burst", count()),
        // The host knows units.
        "bandwidth" => ("bandwidth", json!(value)),
        "bandwidth_burst" => ("bandwidth_burst", json!(value)),
        _ => return None,
    })
}

/// What a disk has that most have not, in one line.
pub(super) fn disk_settings(disk: &VmDisk) -> String {
    let limits = disk_limits(&disk.limits);
    match disk.on_error {
        OnDiskError::Pause => limits,
        OnDiskError::Report => format!("{limits} (errors are reported to the VM)"),
    }
}

/// A disk's limits in one line; nothing where it has none.
fn disk_limits(limits: &VmDiskLimits) -> String {
    let burst =
        |burst: Option<String>| burst.map_or(String::new(), |burst| format!(" (at once {burst})"));
    let iops = limits.iops.map(|iops| {
        let burst = burst(limits.iops_burst.map(|burst| burst.to_string()));
        format!("{iops} operations/s{burst}")
    });
    let bandwidth = limits.bandwidth.map(|bandwidth| {
        let burst = burst(limits.bandwidth_burst.map(|burst| burst.to_string()));
        format!("{bandwidth}/s{burst}")
    });
    let parts: Vec<String> = [iops, bandwidth].into_iter().flatten().collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(" at most {}", parts.join(" and ")),
    }
}

fn add<T: Serialize>(fields: &mut Map<String, Value>, name: &str, limit: Option<&Limit<T>>) {
    if let Some(limit) = limit {
        fields.insert(name.to_owned(), json!(limit.0));
    }
}

/// What is not wanted stays.
fn change<T: Copy>(limit: &mut Option<T>, wanted: Option<&Limit<T>>) {
    if let Some(Limit(wanted)) = wanted {
        *limit = *wanted;
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

/// For how long its disks were held back, if they were.
pub(super) fn held_back(vm: &Vm) -> Option<(&'static str, String)> {
    let us = vm.status.disk_throttled_us;
    (us > 0).then(|| ("Disks held back", format!("for {}", seconds(us))))
}

fn seconds(us: u64) -> String {
    format!("{:.1} s", us as f64 / 1e6)
}

/// The processor time it has used, and for how long it was held back.
pub(super) fn cpu_time(vm: &Vm) -> String {
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
    fn a_disk_keeps_what_is_not_changed() {
        let limits = |json| serde_json::from_value::<VmDiskLimits>(json).unwrap();
        let none = || DiskChanges {
            iops: None,
            iops_burst: None,
            bandwidth: None,
            bandwidth_burst: None,
            on_error: None,
        };
        let before = limits(json!({"iops": 500, "iops_burst": 50, "bandwidth": "1MiB"}));
        assert_eq!(none().changed(before), before);
        let other = DiskChanges {
            iops: Some(Limit(None)),
            bandwidth: Some(Limit(Some(Size::mib(2)))),
            ..none()
        };
        assert_eq!(other.changed(before), limits(json!({"bandwidth": "2MiB"})));
        assert_eq!(disk_limits(&VmDiskLimits::default()), "");
        let text = " at most 500 operations/s (at once 50) and 1 MiB/s";
        assert_eq!(disk_limits(&before), text);
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
