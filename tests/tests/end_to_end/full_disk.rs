//! A data disk that is filled to its last byte under a guest which writes, and one that is pulled out.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use lodge_tests::artifacts;
use lodge_tests::host::{Host, PASSWORD};
use lodge_tests::machine::{Builder, Medium};
use lodge_tests::terminal::GuestConsole;
use serde_json::Value;

use crate::hotplug::tell;

/// The guest's disks: what it calls them, and what they are on.
const DISKS: [(&str, &str); 3] = [
    ("/dev/vda", "on-virtio"),
    ("/dev/nvme0n1", "on-nvme:nvme"),
    ("/dev/sda", "on-sata:sata"),
];

/// Takes all of the data disk but so many MiB.
fn leave(host: &Host, mib: u64) -> Result<()> {
    let free = "$(df -m /data | tail -n 1 | awk '{print $4}')";
    let fill = format!("fallocate -l $(( ({free} - {mib}) << 20 )) /data/ballast && echo filled");
    let said = host.machine.sh(&fill)?;
    ensure!(said.contains("filled"), "{said}");
    Ok(())
}

/// A guest with a disk on each bus, and 24 MiB that nobody could guess.
fn start(host: &Host) -> Result<GuestConsole> {
    let mut options = vec!["--memory", "256MiB"];
    for (_, disk) in DISKS {
        let (name, _) = disk.split_once(':').unwrap_or((disk, ""));
        host.cli.ok(&["disk", "create", name, "--size", "64MiB"])?;
        options.extend(["--disk", disk]);
    }
    host.create_guest("writer", "shell", &options)?;
    host.cli.ok(&["vm", "start", "writer"])?;
    let mut console = GuestConsole::open(&host.cli, "writer")?;
    console.wait("LODGE-GUEST-SHELL")?;
    let pattern = "dd if=/dev/urandom of=/tmp/pattern bs=1M count=24 2>/dev/null && echo $(wc -c </tmp/pattern) bytes; \
         SUM=$(md5sum </tmp/pattern)";
    tell(&mut console, pattern, "pattern")?;
    console.wait("25165824 bytes")?;
    Ok(console)
}

/// The host says of its data storage that it is so, in a message with `word` in it, and as a warning if it is not sound.
fn storage_is(host: &Host, health: &str, word: &str) -> Result<()> {
    let said = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        text.contains("The data storage") && text.contains(word)
    };
    host.wait_event("system", |event| Ok(said(&event["message"])))?;
    let system = host.cli.json(&["system", "show"])?;
    ensure!(system["storage"]["health"] == health, "{system}");
    let mut warnings = system["warnings"].as_array().into_iter().flatten();
    ensure!(warnings.any(said) == (health != "sound"), "{system}");
    Ok(())
}

/// Waits until the guest is paused for want of space once more than `before`.
fn stuck(host: &Host, before: usize) -> Result<()> {
    let seen = Cell::new(0);
    let event = host.wait_event("vm_disk_error", |_| {
        seen.set(seen.get() + 1);
        Ok(seen.get() > before)
    })?;
    ensure!(
        event["vm"] == "writer" && event["error"]["problem"] == "no_space",
        "{event}"
    );
    let vm = host.wait_state("writer", "paused")?;
    let status = &vm["status"];
    ensure!(status["disk_error"] == event["error"], "{vm}");
    let reason = status["reason"].as_str().context("a reason")?;
    ensure!(reason.contains("free some, then resume it"), "{reason}");
    Ok(())
}

fn a_full_disk_pauses_the_guest(host: &Host, console: &mut GuestConsole) -> Result<()> {
    let mut writes = String::new();
    for (device, _) in DISKS {
        let write = format!("dd if=/tmp/pattern of={device} bs=1M conv=fsync 2>/dev/null");
        writes += &format!("{{ {write} && echo WRITTEN-\"\"{device}; }} & ");
    }
    console.write(&format!("{writes}\n"))?;
    stuck(host, 0).with_context(|| console.text())?;
    // To the last byte.
    host.machine
        .sh("dd if=/dev/zero of=/data/crumbs bs=4k 2>/dev/null; sync")?;
    // The API answers, and changes nothing for which there is no room.
    host.cli.ok(&["system", "show"])?;
    let shown = host.cli.ok(&["vm", "list"])?;
    ensure!(shown.contains("no space is left"), "{shown}");
    let kernel = artifacts::guest_kernel_elf();
    let file = kernel.to_string_lossy();
    let upload = ["image", "upload", "--kind", "kernel", &file, "more"];
    let problem = host.cli.fails(&upload)?;
    ensure!(problem.contains("delete images or disks"), "{problem}");
    storage_is(host, "low", "nearly full")?;
    // Somebody may log in to make room.
    host.add_remote("again", PASSWORD)?;
    // Nothing has changed about that.
    host.cli.ok(&["vm", "resume", "writer"])?;
    stuck(host, 1)?;
    Ok(())
}

fn it_goes_on_without_loss(host: &Host, console: &mut GuestConsole) -> Result<()> {
    host.machine.sh("rm /data/ballast /data/crumbs")?;
    host.cli.ok(&["vm", "resume", "writer"])?;
    for (device, _) in DISKS {
        console.wait(&format!("WRITTEN-{device}"))?;
    }
    storage_is(host, "sound", "is sound")?;
    let vm = host.vm("writer")?;
    ensure!(vm["status"]["state"] == "running", "{vm}");
    ensure!(vm["status"].get("disk_error").is_none(), "{vm}");
    for (device, _) in DISKS {
        let compare = format!(
            "echo 3 >/proc/sys/vm/drop_caches; [ \"$(dd if={device} bs=1M count=24 2>/dev/null | md5sum)\" = \"$SUM\" ] && echo SAME-\"\"{device}"
        );
        console.write(&format!("{compare}\n"))?;
        console.wait(&format!("SAME-{device}"))?;
    }
    // It has not heard of anything.
    tell(console, "dmesg | grep 'I[/]O error'", "looked")?;
    let said = console.text();
    ensure!(!said.contains("I/O error"), "{said}");
    Ok(())
}

/// Whoever wants that has the guest deal with it.
fn a_guest_may_be_told(host: &Host, console: &mut GuestConsole) -> Result<()> {
    let set = ["vm", "disk", "set", "writer", "on-virtio"];
    host.cli
        .ok(&[&set[..], &["--on-error", "report"]].concat())?;
    let vm = host.vm("writer")?;
    ensure!(vm["status"]["restart_pending"] == false, "{vm}");
    leave(host, 1)?;
    console.write(
        "dd if=/tmp/pattern of=/dev/vda bs=1M seek=30 conv=fsync 2>/dev/null || echo FAILED-\"\"AS-TOLD\n",
    )?;
    console.wait("FAILED-AS-TOLD")?;
    let vm = host.vm("writer")?;
    ensure!(vm["status"]["state"] == "running", "{vm}");
    host.machine.sh("rm /data/ballast")?;
    Ok(())
}

/// The disk goes away under everything. What is in memory is still shown, nothing is taken that would be lost, and the guest stands.
fn a_disk_is_pulled_out(host: &Host, console: &mut GuestConsole) -> Result<()> {
    host.machine
        .sh("echo 1 >/sys/block/nvme0n1/device/device/remove")?;
    storage_is(host, "failed", "fails")?;
    console.write("dd if=/tmp/pattern of=/dev/nvme0n1 bs=1M conv=fsync 2>/dev/null\n")?;
    let event = host.wait_event("vm_disk_error", |event| {
        Ok(event["error"]["problem"] == "io_error")
    })?;
    ensure!(event["error"]["disk"] == "on-nvme", "{event}");
    let vm = host.wait_state("writer", "paused")?;
    let reason = vm["status"]["reason"].as_str().context("a reason")?;
    ensure!(reason.contains("failed"), "{reason}");
    let problem = host
        .cli
        .fails(&["disk", "create", "more", "--size", "1MiB"])?;
    ensure!(!problem.is_empty());
    let vms = host.cli.json(&["vm", "list"])?;
    ensure!(vms.as_array().map(Vec::len) == Some(1), "{vms}");
    Ok(())
}

#[test]
fn a_guest_waits_for_space() {
    let builder = Builder::new()
        .medium(Medium::Shell)
        .memory_mib(3072)
        .data_disk(512 << 20);
    let host = Host::boot(builder).unwrap();
    host.upload_guest().unwrap();
    let mut console = start(&host).unwrap();
    leave(&host, 30).unwrap();
    a_full_disk_pauses_the_guest(&host, &mut console).unwrap();
    it_goes_on_without_loss(&host, &mut console).unwrap();
    a_guest_may_be_told(&host, &mut console).unwrap();
    // There is nothing to shut down in order after that.
    a_disk_is_pulled_out(&host, &mut console).unwrap();
}
