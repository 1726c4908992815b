//! A guest that writes without a pause is saved, and goes on from there.

use anyhow::{Context, Result, ensure};
use lodge_tests::host::Host;
use lodge_tests::machine::Builder;
use lodge_tests::terminal::GuestConsole;

/// How often a snapshot is gone back to, unless `LODGE_TEST_RESTORES` says otherwise.
const RESTORES: usize = 2;

/// Rounds of the guest that must be right each time.
const ROUNDS: usize = 3;

/// Sizes of memory to do it with, unless `LODGE_TEST_MEMORY` says otherwise, with commas in between.
const MEMORY: &str = "1GiB";

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// The guest goes on, and remembers what must be on its disk.
fn hammers_on(host: &Host, vm: &str) -> Result<()> {
    let console = GuestConsole::open(&host.cli, vm)?;
    console.wait_count(" ok", ROUNDS)?;
    let text = console.text();
    for trouble in ["bad", "failed", "Call Trace", "BUG:", "stall"] {
        ensure!(!text.contains(trouble), "{text}");
    }
    Ok(())
}

fn goes_back_while_it_writes(host: &Host, memory: &str) -> Result<()> {
    let restores: usize = setting("LODGE_TEST_RESTORES", &RESTORES.to_string()).parse()?;
    host.cli
        .ok(&["disk", "create", "hammered", "--size", "64MiB"])?;
    host.create_guest(
        "hammer",
        "disk-hammer",
        &["--memory", memory, "--disk", "hammered", "--hyperv"],
    )?;
    host.cli.ok(&["vm", "start", "hammer"])?;
    hammers_on(host, "hammer")?;
    host.cli.ok(&["snapshot", "create", "hammer", "amid"])?;
    let snapshot = host.cli.json(&["snapshot", "show", "amid"])?;
    assert_eq!(snapshot["memory"], true, "{snapshot}");
    hammers_on(host, "hammer")?;
    for _ in 0..restores {
        host.cli.ok(&["vm", "kill", "hammer"])?;
        host.cli
            .ok(&["snapshot", "revert", "hammer", "amid", "--yes"])?;
        hammers_on(host, "hammer")?;
    }
    // One after the other, as a host may not have the memory for more.
    host.cli.ok(&["vm", "kill", "hammer"])?;
    for name in ["twin-a", "twin-b"] {
        host.cli.ok(&["snapshot", "clone", "amid", name])?;
        hammers_on(host, name)?;
        host.cli.ok(&["vm", "kill", name])?;
    }
    host.cli.ok(&["snapshot", "delete", "amid", "--yes"])?;
    for name in ["hammer", "twin-a", "twin-b"] {
        host.cli.ok(&["vm", "delete", name, "--yes"])?;
    }
    for disk in ["hammered", "twin-a-disk0", "twin-b-disk0"] {
        host.cli.ok(&["disk", "delete", disk, "--yes"])?;
    }
    Ok(())
}

/// What a guest says on its socket: its boot, and random numbers.
fn answer(host: &Host, vm: &str) -> Result<(String, String)> {
    let line = host.cli.ok(&["vm", "connect", vm, "1024"])?;
    let field = |name: &str| {
        let found = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name));
        found.map(str::to_owned).context(line.clone())
    };
    Ok((field("boot=")?, field("random=")?))
}

/// The first at once, of the disks alone unless said otherwise. It is one like any other.
fn one_is_taken_by_schedule(host: &Host, vm: &str) -> Result<()> {
    host.cli.ok(&[
        "vm",
        "set",
        vm,
        "--snapshot-every",
        "6h",
        "--snapshot-keep",
        "2",
    ])?;
    let prefix = format!("/v1/snapshots/{vm}-");
    host.wait_event("object", |event| {
        let target = event["target"].as_str().unwrap_or_default();
        Ok(target.starts_with(&prefix) && event["change"] == "created")
    })?;
    let filter = ["snapshot", "list", "--filter", "scheduled eq true"];
    let taken = host.cli.json(&filter)?;
    assert_eq!(taken.as_array().map(Vec::len), Some(1), "{taken}");
    assert_eq!(taken[0]["memory"], false, "{taken}");
    assert_eq!(host.vm(vm)?["status"]["restart_pending"], false);
    let shown = host.cli.ok(&["vm", "show", vm])?;
    assert!(shown.contains("every 6h, 2 are kept"), "{shown}");
    host.cli.ok(&["vm", "set", vm, "--no-snapshot-schedule"])?;
    let name = taken[0]["name"].as_str().context("a name")?;
    host.cli.ok(&["snapshot", "delete", name, "--yes"])?;
    Ok(())
}

/// Guests of a warm template were booted together, and are each another all the same.
fn a_warm_template_makes_guests_of_their_own(host: &Host) -> Result<()> {
    host.create_guest("template", "vsock,tick:1", &["--memory", "192MiB"])?;
    host.cli.ok(&["vm", "start", "template"])?;
    let console = GuestConsole::open(&host.cli, "template")?;
    console.wait("LODGE-VSOCK port=1024")?;
    console.wait("LODGE-TICK 1 ")?;
    let (boot, _) = answer(host, "template")?;
    one_is_taken_by_schedule(host, "template")?;
    host.cli.ok(&["snapshot", "create", "template", "warm"])?;
    host.cli.ok(&["vm", "kill", "template"])?;
    let mut seen = Vec::new();
    for name in ["clone-a", "clone-b", "clone-c"] {
        host.cli.ok(&["snapshot", "clone", "warm", name])?;
        let (same, random) = answer(host, name)?;
        assert_eq!(same, boot, "{name}");
        let cid = host.vm(name)?["status"]["vsock_cid"].clone();
        seen.push((random, cid.to_string()));
    }
    for (number, (random, cid)) in seen.iter().enumerate() {
        for (other_random, other_cid) in &seen[..number] {
            assert!(random != other_random && cid != other_cid, "{seen:?}");
        }
    }
    for name in ["clone-a", "clone-b", "clone-c"] {
        host.cli.ok(&["vm", "kill", name])?;
    }
    Ok(())
}

#[test]
fn guests_go_on_from_snapshots() {
    let builder = Builder::new().memory_mib(8192).data_disk(20 << 30);
    let host = Host::boot(builder).unwrap();
    host.upload_guest().unwrap();
    a_warm_template_makes_guests_of_their_own(&host).unwrap();
    for memory in setting("LODGE_TEST_MEMORY", MEMORY).split(',') {
        goes_back_while_it_writes(&host, memory).unwrap();
    }
    host.shut_down().unwrap();
}
