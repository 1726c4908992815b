//! What a guest's disks are held to: by its monitor.

use std::ops::RangeInclusive;

use lodge_api::vm::{VmDisk, VmDiskLimits};
use lodge_api::{Problem, Size};
use lodge_vmm_proto::{DiskLimits, Rate};

/// With less, drivers of guests give requests up that wait behind others.
const IOPS: RangeInclusive<u64> = 10..=10_000_000;
const IOPS_BURST: RangeInclusive<u64> = 1..=100_000_000;
const BANDWIDTH: RangeInclusive<u64> = 64 << 10..=64 << 30;
const BANDWIDTH_BURST: RangeInclusive<u64> = 1..=1 << 40;

/// Without a burst that was asked for, what comes in this part of a second.
const BURST: u64 = 10;

/// Refuses what makes no sense.
pub(super) fn check(disks: &[VmDisk]) -> Result<(), Problem> {
    for (number, disk) in disks.iter().enumerate() {
        let limits = &disk.limits;
        let at = |field: &str| format!("/disks/{number}/limits/{field}");
        let count = |number: u64| number.to_string();
        let size = |bytes: u64| Size(bytes).to_string();
        let iops = limits.iops.map(u64::from);
        let burst = limits.iops_burst.map(u64::from);
        within(&at("iops"), iops, IOPS, count)?;
        within(&at("iops_burst"), burst, IOPS_BURST, count)?;
        with(&at("iops_burst"), burst, iops, "iops")?;
        let bandwidth = limits.bandwidth.map(Size::bytes);
        let burst = limits.bandwidth_burst.map(Size::bytes);
        within(&at("bandwidth"), bandwidth, BANDWIDTH, size)?;
        within(&at("bandwidth_burst"), burst, BANDWIDTH_BURST, size)?;
        with(&at("bandwidth_burst"), burst, bandwidth, "bandwidth")?;
    }
    Ok(())
}

fn within(
    pointer: &str,
    value: Option<u64>,
    range: RangeInclusive<u64>,
    show: fn(u64) -> String,
) -> Result<(), Problem> {
    let Some(value) = value.filter(|value| !range.contains(value)) else {
        return Ok(());
    };
    let detail = format!("{} is out of range", show(value));
    let hint = format!(
        "give {} to {}, or leave it out",
        show(*range.start()),
        show(*range.end())
    );
    Err(Problem::invalid(pointer, detail).with_hint(hint))
}

fn with(pointer: &str, burst: Option<u64>, rate: Option<u64>, field: &str) -> Result<(), Problem> {
    if burst.is_some() && rate.is_none() {
        let detail = format!("a burst without `{field}` limits nothing");
        return Err(Problem::invalid(pointer, detail).with_hint(format!("give `{field}` as well")));
    }
    Ok(())
}

/// Takes the limits over of those that both have, and what is done when they fail.
pub(super) fn adopt(disks: &mut [VmDisk], from: &[VmDisk]) {
    for disk in disks {
        if let Some(other) = from.iter().find(|other| other.disk == disk.disk) {
            disk.limits = other.limits;
            disk.on_error = other.on_error;
        }
    }
}

/// In the words of the monitor.
pub(in crate::vms) fn of_disk(limits: &VmDiskLimits) -> DiskLimits {
    let rate = |per_second: Option<u64>, burst: Option<u64>| {
        let per_second = per_second?;
        let burst = burst.unwrap_or(per_second / BURST);
        Some(Rate { per_second, burst })
    };
    DiskLimits {
        operations: rate(limits.iops.map(u64::from), limits.iops_burst.map(u64::from)),
        bytes: rate(
            limits.bandwidth.map(Size::bytes),
            limits.bandwidth_burst.map(Size::bytes),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, limits: &str) -> VmDisk {
        let json = format!(r#"{{"disk": "{name}", "limits": {limits}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn what_is_out_of_range_is_pointed_at() {
        for (limits, field) in [
            (r#"{"iops": 9}"#, "iops"),
            (r#"{"iops": 10000001}"#, "iops"),
            (r#"{"iops": 10, "iops_burst": 0}"#, "iops_burst"),
            (r#"{"iops_burst": 10}"#, "iops_burst"),
            (r#"{"bandwidth": 65535}"#, "bandwidth"),
            (r#"{"bandwidth": "65GiB"}"#, "bandwidth"),
            (
                r#"{"bandwidth": "1MiB", "bandwidth_burst": "2TiB"}"#,
                "bandwidth_burst",
            ),
            (
                r#"{"iops": 10, "bandwidth_burst": "1MiB"}"#,
                "bandwidth_burst",
            ),
        ] {
            let problem = check(&[disk("a", "{}"), disk("b", limits)]).unwrap_err();
            let pointer = format!("/disks/1/limits/{field}");
            assert_eq!(problem.pointer, Some(pointer), "{limits}");
            assert!(problem.hint.is_some());
        }
        let all = r#"{"iops": 10, "iops_burst": 1, "bandwidth": "64KiB", "bandwidth_burst": 1}"#;
        assert!(check(&[disk("a", all)]).is_ok());
    }

    #[test]
    fn a_burst_that_was_not_asked_for_is_a_tenth() {
        let limits = of_disk(&disk("a", r#"{"iops": 500, "bandwidth": "10MiB"}"#).limits);
        let rate = limits.operations.unwrap();
        assert_eq!((rate.per_second, rate.burst), (500, 50));
        assert_eq!(limits.bytes.unwrap().burst, 1 << 20);
        let limits = of_disk(&disk("a", r#"{"iops": 500, "iops_burst": 7}"#).limits);
        assert_eq!(limits.operations.unwrap().burst, 7);
        assert_eq!(limits.bytes, None);
        assert!(of_disk(&VmDiskLimits::default()).is_none());
    }

    #[test]
    fn limits_follow_their_disks() {
        let mut disks = [disk("a", r#"{"iops": 10}"#), disk("b", "{}")];
        let other = [disk("c", r#"{"iops": 30}"#), disk("b", r#"{"iops": 20}"#)];
        adopt(&mut disks, &other);
        let iops = disks.map(|disk| disk.limits.iops);
        assert_eq!(iops, [Some(10), Some(20)]);
    }
}
