//! What a guest gets of its host's processors: by its cgroup.

use std::ops::RangeInclusive;

use lodge_api::system::Controls;
use lodge_api::vm::VmCpu;
use lodge_api::{Problem, Processors};
use lodge_host::cgroup::{CgroupLimits, CgroupTree};

/// Weights of cgroups, which shares are.
const SHARES: RangeInclusive<u16> = 1..=10_000;

/// Percent of one processor.
const LIMIT: RangeInclusive<u16> = 1..=10_000;

/// The way out where a controller is missing.
const MOUNT: &str = "leave it out, or have the host mount cgroup v2 at /sys/fs/cgroup with this controller, as systemd does, and run \
                     `lodge serve` as root";

/// What the cgroups of this host's guests can do.
pub(super) fn controls(tree: Option<&CgroupTree>) -> Controls {
    let controllers = tree.and_then(|tree| tree.controllers().ok());
    let controllers = controllers.unwrap_or_default();
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let processors = tree.filter(|_| has("cpuset"));
    let processors = processors.and_then(|tree| tree.processors().ok());
    Controls {
        cpu: has("cpu"),
        processors: processors.and_then(|list| list.parse().ok()),
    }
}

/// Refuses what makes no sense, or what this host cannot hold a guest to.
pub(super) fn check(cpu: &VmCpu, controls: &Controls) -> Result<(), Problem> {
    check_time("/cpu/shares", cpu.shares, SHARES, "shares", controls)?;
    check_time(
        "/cpu/limit",
        cpu.limit,
        LIMIT,
        "percent of a processor",
        controls,
    )?;
    match &cpu.affinity {
        Some(wanted) => check_affinity(wanted, controls),
        None => Ok(()),
    }
}

fn check_time(
    pointer: &str,
    value: Option<u16>,
    range: RangeInclusive<u16>,
    what: &str,
    controls: &Controls,
) -> Result<(), Problem> {
    let Some(value) = value else { return Ok(()) };
    if !range.contains(&value) {
        let detail = format!("{value} {what} are not possible");
        let hint = format!("give {} to {}", range.start(), range.end());
        return Err(Problem::invalid(pointer, detail).with_hint(hint));
    }
    if !controls.cpu {
        let detail = "this host cannot divide its processor time among guests: its kernel gives Lodge no cgroup controller `cpu`";
        return Err(Problem::invalid(pointer, detail).with_hint(MOUNT));
    }
    Ok(())
}

fn check_affinity(wanted: &Processors, controls: &Controls) -> Result<(), Problem> {
    let pointer = "/cpu/affinity";
    let Some(online) = &controls.processors else {
        let detail = "this host cannot keep guests to some of its processors: its kernel gives Lodge no cgroup controller `cpuset`";
        return Err(Problem::invalid(pointer, detail).with_hint(MOUNT));
    };
    let Some(missing) = wanted.without(online) else {
        return Ok(());
    };
    let detail = match missing.count() {
        1 => format!("this host has no processor {missing}, or it is offline"),
        _ => format!("this host has no processors {missing}, or they are offline"),
    };
    Err(Problem::invalid(pointer, detail).with_hint(format!("those online are {online}")))
}

/// Takes over what holds at once.
pub(super) fn adopt(cpu: &mut VmCpu, from: &VmCpu) {
    cpu.shares = from.shares;
    cpu.limit = from.limit;
    cpu.affinity.clone_from(&from.affinity);
}

/// Whether it cannot be had without a cgroup.
pub(in crate::vms) fn need_group(cpu: &VmCpu) -> bool {
    cpu.shares.is_some() || cpu.limit.is_some() || cpu.affinity.is_some()
}

/// Adds that to a cgroup's limits.
pub(in crate::vms) fn limit_group(group: &mut CgroupLimits, cpu: &VmCpu) {
    group.cpu_weight = cpu.shares.map(u32::from);
    group.cpu_max_millis = cpu.limit.map(|percent| u64::from(percent) * 10);
    group.cpus = cpu.affinity.as_ref().map(Processors::to_string);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(json: &str) -> VmCpu {
        serde_json::from_str(json).unwrap()
    }

    fn able() -> Controls {
        Controls {
            cpu: true,
            processors: Some("0-7".parse().unwrap()),
        }
    }

    #[test]
    fn what_is_out_of_range_is_pointed_at() {
        for (json, pointer) in [
            (r#"{"shares": 0}"#, "/cpu/shares"),
            (r#"{"shares": 10001}"#, "/cpu/shares"),
            (r#"{"limit": 0}"#, "/cpu/limit"),
            (r#"{"limit": 10001}"#, "/cpu/limit"),
            (r#"{"affinity": "7-9,12"}"#, "/cpu/affinity"),
            (r#"{"affinity": "8"}"#, "/cpu/affinity"),
        ] {
            let problem = check(&cpu(json), &able()).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some(pointer), "{json}");
            assert!(problem.hint.is_some());
        }
        let problem = check(&cpu(r#"{"affinity": "7-9,12"}"#), &able()).unwrap_err();
        assert!(problem.detail.contains("8-9,12"), "{problem}");
        assert!(problem.hint.unwrap().contains("0-7"));
        let all = r#"{"shares": 10000, "limit": 1, "affinity": "0,7"}"#;
        assert!(check(&cpu(all), &able()).is_ok());
    }

    #[test]
    fn a_host_that_cannot_says_so() {
        for (json, controller) in [
            (r#"{"shares": 100}"#, "`cpu`"),
            (r#"{"limit": 100}"#, "`cpu`"),
            (r#"{"affinity": "0"}"#, "`cpuset`"),
        ] {
            let problem = check(&cpu(json), &Controls::default()).unwrap_err();
            assert!(problem.detail.contains(controller), "{problem}");
        }
        assert!(check(&cpu("{}"), &Controls::default()).is_ok());
        assert_eq!(controls(None), Controls::default());
    }

    #[test]
    fn a_group_is_limited_as_wanted() {
        let mut limits = CgroupLimits {
            memory_max: Some(1),
            ..CgroupLimits::default()
        };
        let before = limits.clone();
        limit_group(&mut limits, &cpu("{}"));
        assert_eq!(limits, before);
        let all = r#"{"shares": 200, "limit": 150, "affinity": "8,0-3"}"#;
        limit_group(&mut limits, &cpu(all));
        assert_eq!(limits.cpu_weight, Some(200));
        assert_eq!(limits.cpu_max_millis, Some(1500));
        assert_eq!(limits.cpus.as_deref(), Some("0-3,8"));
        assert_eq!(limits.memory_max, Some(1));
    }
}
