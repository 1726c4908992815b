//! What cloud-init of a guest is given is on a disc that the guest's kernel reads.

use anyhow::{Context, Result, ensure};
use lodge_tests::host::Host;
use lodge_tests::shared::Shared;
use lodge_tests::terminal::GuestConsole;

use crate::hotplug::tell;

const USER_DATA: &str = "#cloud-config\nruncmd: [echo LODGE-CLOUD]\n";

/// With a name, a key and user data; changed for the next start; and without.
fn a_guest_is_given_files(host: &Host) -> Result<()> {
    let file = host.machine.directory().join("user-data");
    std::fs::write(&file, USER_DATA)?;
    let file = file.to_string_lossy();
    let options = [
        "--memory",
        "192MiB",
        "--user-data",
        &file,
        "--ssh-key",
        "ssh-ed25519 AAAAC3Nz me@here",
    ];
    host.create_guest("cloudy", "shell", &options)?;
    let shown = host.cli.json(&["vm", "cloud-init", "cloudy"])?;
    ensure!(shown["user_data"] == USER_DATA, "{shown}");
    let first = shown["instance_id"].as_str().context("an instance")?;

    host.cli.ok(&["vm", "start", "cloudy"])?;
    let mut console = GuestConsole::open(&host.cli, "cloudy")?;
    console.wait("LODGE-GUEST-SHELL")?;
    tell(
        &mut console,
        "modprobe -a sr_mod isofs; until [ -b /dev/sr0 ]; do sleep 1; done; mkdir -p /mnt; mount -t iso9660 -o ro /dev/sr0 /mnt",
        "mounted",
    )?;
    // cloud-init looks for the label, which is in the volume's descriptor.
    let label = "echo label=$(dd if=/dev/sr0 bs=1 skip=32808 count=6 2>/dev/null)";
    tell(&mut console, label, "looked")?;
    let said = console.text();
    ensure!(said.contains("label=CIDATA"), "{said}");
    tell(&mut console, "cat /mnt/user-data /mnt/meta-data", "read")?;
    let said = console.text();
    for expected in [
        "runcmd: [echo LODGE-CLOUD]",
        "\"local-hostname\": \"cloudy\"",
        "ssh-ed25519 AAAAC3Nz me@here",
        first,
    ] {
        ensure!(said.contains(expected), "no {expected}: {said}");
    }
    // The drive is not one of the guest's own.
    let problem = host.cli.fails(&["vm", "eject", "cloudy"])?;
    ensure!(problem.contains("no CD-ROM drive 0"), "{problem}");

    host.cli
        .ok(&["vm", "set", "cloudy", "--hostname", "rainy"])?;
    let vm = host.vm("cloudy")?;
    ensure!(vm["status"]["restart_pending"] == true, "{vm}");
    let shown = host.cli.json(&["vm", "cloud-init", "cloudy"])?;
    ensure!(shown["instance_id"] != first, "{shown}");
    ensure!(shown["user_data"] == USER_DATA, "{shown}");
    let problem = host
        .cli
        .fails(&["vm", "set", "cloudy", "--ssh-key", "ssh-ed25519 A B\nC"])?;
    ensure!(problem.contains("a key is one line"), "{problem}");
    host.cli.ok(&["vm", "kill", "cloudy"])?;
    host.cli.ok(&["vm", "set", "cloudy", "--no-cloud-init"])?;
    let problem = host.cli.fails(&["vm", "cloud-init", "cloudy"])?;
    ensure!(problem.contains("has no `cloud_init`"), "{problem}");
    Ok(())
}

#[test]
fn a_guest_finds_what_its_cloud_init_is_given() {
    let host = Shared::take().unwrap();
    a_guest_is_given_files(&host).unwrap();
}
