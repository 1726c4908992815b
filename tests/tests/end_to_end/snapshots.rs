//! A guest that writes without a pause is saved, and goes on from there.

use anyhow::{Result, ensure};
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
        &["--memory", memory, "--disk", "hammered"],
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

#[test]
fn a_guest_goes_back_to_where_it_was_while_it_wrote() {
    let builder = Builder::new().memory_mib(8192).data_disk(20 << 30);
    let host = Host::boot(builder).unwrap();
    host.upload_guest().unwrap();
    for memory in setting("LODGE_TEST_MEMORY", MEMORY).split(',') {
        goes_back_while_it_writes(&host, memory).unwrap();
    }
    host.shut_down().unwrap();
}
