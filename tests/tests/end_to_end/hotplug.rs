//! Disks and network interfaces come to a running Debian kernel, and leave it.

use anyhow::{Context, Result, ensure};
use lodge_tests::host::Host;
use lodge_tests::shared::Shared;
use lodge_tests::terminal::GuestConsole;

/// Has the guest's shell do something, and waits for what it says. The answer is put together by the shell, so that
/// its echo is not taken for it.
pub(crate) fn tell(console: &mut GuestConsole, command: &str, answer: &str) -> Result<String> {
    console.write(&format!("{command}; echo LODGE-\"\"TOLD {answer}\n"))?;
    console.wait(&format!("LODGE-TOLD {answer}"))
}

/// Has the guest's shell wait for something.
pub(crate) fn until(console: &mut GuestConsole, condition: &str, answer: &str) -> Result<String> {
    tell(
        console,
        &format!("until {condition}; do sleep 1; done"),
        answer,
    )
}

/// Asks the guest for a device. In an emulator it may take its time.
fn remove(host: &Host, kind: &str, device: &str) -> Result<()> {
    let arguments = ["vm", kind, "remove", "plugged", device];
    host.cli
        .ok(&[&arguments[..], &["--timeout", "300"]].concat())?;
    Ok(())
}

fn a_disk_comes_grows_and_leaves(host: &Host, console: &mut GuestConsole) -> Result<()> {
    host.cli
        .ok(&["disk", "create", "extra", "--size", "64MiB"])?;
    let problem = host
        .cli
        .fails(&["vm", "disk", "add", "plugged", "extra:sata"])?;
    ensure!(problem.contains("SATA"), "{problem}");
    host.cli.ok(&["vm", "disk", "add", "plugged", "extra"])?;
    until(console, "[ -b /dev/vda ]", "disk-came")?;
    let size = |mib: u64| format!("[ $(cat /sys/block/vda/size) = {} ]", mib * 2048);
    until(console, &size(64), "disk-has-64")?;
    tell(
        console,
        "echo kept | dd of=/dev/vda bs=512 seek=100 conv=sync,fsync 2>/dev/null",
        "disk-written",
    )?;
    host.cli.ok(&["disk", "grow", "extra", "96MiB"])?;
    until(console, &size(96), "disk-has-96")?;
    tell(
        console,
        "echo beyond | dd of=/dev/vda bs=1M seek=80 conv=sync,fsync 2>/dev/null && echo fine",
        "disk-written-beyond",
    )?;
    let problem = host.cli.fails(&["disk", "grow", "extra", "64MiB"])?;
    ensure!(problem.contains("can only grow"), "{problem}");
    let vm = host.vm("plugged")?;
    ensure!(vm["status"]["restart_pending"] == false, "{vm}");
    remove(host, "disk", "extra")?;
    until(console, "[ ! -e /sys/block/vda ]", "disk-left")?;
    let vm = host.vm("plugged")?;
    ensure!(vm["disks"].as_array().is_some_and(Vec::is_empty), "{vm}");
    // The same data, wherever it is; and out by force, which the guest notices as well.
    host.cli.ok(&["vm", "disk", "add", "plugged", "extra:ro"])?;
    until(console, "[ -b /dev/vda ]", "disk-came-again")?;
    tell(
        console,
        "echo found=$(dd if=/dev/vda bs=512 skip=100 count=1 2>/dev/null | head -n 1)",
        "disk-read",
    )?;
    ensure!(console.text().contains("found=kept"), "{}", console.text());
    host.cli
        .ok(&["vm", "disk", "remove", "plugged", "extra", "--force"])?;
    until(console, "[ ! -e /sys/block/vda ]", "disk-was-pulled")?;
    Ok(())
}

fn a_network_interface_comes_and_leaves(host: &Host, console: &mut GuestConsole) -> Result<()> {
    host.cli.ok(&["network", "create", "inside"])?;
    let several = ["vm", "nic", "add", "plugged", "default,queues=2"];
    host.cli.ok(&several)?;
    until(console, "[ -e /sys/class/net/eth0 ]", "nic-came")?;
    // Linux uses a pair of queues for each of its processors as soon as the device says that it does.
    let both = "cd /sys/class/net/eth0/queues && [ -e rx-1 ] && [ -e tx-1 ]";
    until(console, both, "both-pairs")?;
    // Its packets move, by vhost-net: the host's network answers.
    tell(
        console,
        "ip link set eth0 up; udhcpc -n -q -t 20 -i eth0 -s /bin/true && echo leased=\"\"yes",
        "nic-asked",
    )?;
    ensure!(
        console.text().contains("leased=yes"),
        "no lease: {}",
        console.text()
    );
    host.cli.ok(&["vm", "nic", "add", "plugged", "inside"])?;
    until(console, "[ -e /sys/class/net/eth1 ]", "second-nic-came")?;
    let vm = host.vm("plugged")?;
    for (nic, device) in [(1, "eth1"), (0, "eth0")] {
        let mac = vm["nics"][nic]["mac"].as_str().context("a MAC address")?;
        remove(host, "nic", mac)?;
        until(
            console,
            &format!("[ ! -e /sys/class/net/{device} ]"),
            &format!("nic-{nic}-left"),
        )?;
    }
    Ok(())
}

fn a_snapshot_has_what_was_plugged_in(host: &Host, console: &mut GuestConsole) -> Result<()> {
    host.cli.ok(&["vm", "disk", "add", "plugged", "extra"])?;
    until(console, "[ -b /dev/vda ]", "disk-for-snapshot")?;
    host.cli
        .ok(&["snapshot", "create", "plugged", "with-disk"])?;
    remove(host, "disk", "extra")?;
    host.cli.ok(&["vm", "kill", "plugged"])?;
    host.cli
        .ok(&["snapshot", "revert", "plugged", "with-disk", "--yes"])?;
    let mut console = GuestConsole::open(&host.cli, "plugged")?;
    tell(
        &mut console,
        "echo again=$(dd if=/dev/vda bs=512 skip=100 count=1 iflag=direct 2>/dev/null | head -n 1)",
        "read-after-revert",
    )?;
    ensure!(console.text().contains("again=kept"), "{}", console.text());
    remove(host, "disk", "extra")?;
    until(&mut console, "[ ! -e /sys/block/vda ]", "left-after-revert")?;
    host.cli.ok(&["vm", "kill", "plugged"])?;
    Ok(())
}

#[test]
fn devices_come_and_go() {
    let host = Shared::take().unwrap();
    let options = ["--memory", "192MiB", "--cpus", "2"];
    host.create_guest("plugged", "shell", &options).unwrap();
    host.cli.ok(&["vm", "start", "plugged"]).unwrap();
    let mut console = GuestConsole::open(&host.cli, "plugged").unwrap();
    console.wait("LODGE-GUEST-SHELL").unwrap();
    // There was no device that asked for these.
    tell(&mut console, "modprobe -a virtio_blk virtio_net", "drivers").unwrap();
    a_disk_comes_grows_and_leaves(&host, &mut console).unwrap();
    a_network_interface_comes_and_leaves(&host, &mut console).unwrap();
    a_snapshot_has_what_was_plugged_in(&host, &mut console).unwrap();
}
