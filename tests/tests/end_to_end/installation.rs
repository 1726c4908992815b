//! From a stick or a CD onto a disk, and from that disk on.

use anyhow::Result;
use lodge_tests::host::{Host, PASSWORD};
use lodge_tests::machine::{Builder, Bus, Firmware, Medium, TARGET_SERIAL};
use lodge_tests::media;
use serde_json::Value;

use crate::update::{comes_and_goes, hung_and_unreachable_come_back};

/// Size of the disks: the smallest on which there is room for the data of these tests.
const SIZE: u64 = 4 << 30;

/// What used to be on the disk.
const OLD: &[u8] = b"nobody knows what this is";

/// Installs a host that already has images and guests, starts it from its disk, and does `more` with it.
fn install_and_restart(
    firmware: Firmware,
    medium: Medium,
    bus: Bus,
    more: impl FnOnce(&mut Host) -> Result<()>,
) {
    let directory = tempfile::tempdir().unwrap();
    let disk = media::blank_disk(directory.path(), "target.raw", SIZE).unwrap();
    write_at(&disk, 1 << 16, OLD);
    let live = Builder::new().firmware(firmware).medium(medium);
    let host = Host::boot(live.target_disk(&disk, bus)).unwrap();
    host.upload_guest().unwrap();
    host.create_guest("before", "poweroff", &["--memory", "128MiB"])
        .unwrap();
    host.cli
        .ok(&["disk", "create", "kept", "--size", "64MiB"])
        .unwrap();

    let disks = host.cli.json(&["system", "disks"]).unwrap();
    let found = listed(&disks, TARGET_SERIAL);
    assert_eq!(found["size"], SIZE, "{found}");
    assert_eq!(found["contents"][0], "something that is not recognised");

    refusals(&host);
    let install = ["system", "install", "--disk", TARGET_SERIAL];
    // The serial number is asked for once more.
    let said = host.cli.outcome(&install, "other\n").unwrap();
    assert!(said.code != Some(0), "{said:?}");
    assert_eq!(read_at(&disk, 1 << 16, OLD.len()), OLD, "nothing was done");

    let asked = format!("{TARGET_SERIAL}\n");
    let said = host.cli.outcome(&install, &asked).unwrap();
    said.success().unwrap();
    moved(&host);
    let fingerprint = host.fingerprint.clone();
    host.shut_down().unwrap();

    let installed = Builder::new().firmware(firmware).medium(Medium::Disk);
    let mut host =
        Host::boot_with_password(&installed.target_disk(&disk, bus), Some(PASSWORD)).unwrap();
    assert_eq!(host.fingerprint, fingerprint, "the same host");
    let text = host.machine.console.text();
    assert!(!text.contains("in memory only"), "{text}");
    moved(&host);
    host.cli.ok(&["vm", "start", "before"]).unwrap();
    host.wait_state("before", "stopped").unwrap();
    let disks = host.cli.json(&["system", "disks"]).unwrap();
    let found = listed(&disks, TARGET_SERIAL);
    let used = found["in_use"].as_str().unwrap();
    assert!(used.contains("this host was started from it"), "{found}");
    more(&mut host).unwrap();
    moved(&host);
    host.shut_down().unwrap();
}

/// Requests that must change nothing.
fn refusals(host: &Host) {
    let fails = |arguments: &[&str]| {
        let arguments = [&["system", "install", "--disk"], arguments].concat();
        host.cli.fails(&arguments).unwrap()
    };
    let said = fails(&["nothing-like-it"]);
    assert!(said.contains("no disk has the serial number"), "{said}");
    let body = format!("{{\"disk\":\"{TARGET_SERIAL}\"}}");
    let said = host
        .cli
        .fails(&["query", "POST", "/v1/system:install", "--data", &body])
        .unwrap();
    assert!(said.contains("is not blank"), "{said}");
}

/// The data are on the disk, and all of them.
fn moved(host: &Host) {
    let system = host.cli.json(&["system", "show"]).unwrap();
    assert_eq!(system["storage"]["kind"], "disk", "{system}");
    assert_eq!(system["storage"]["filesystem"], "xfs", "{system}");
    let names = |noun: &str| -> Vec<String> {
        let list = host.cli.json(&[noun, "list"]).unwrap();
        let list = list.as_array().unwrap();
        list.iter()
            .map(|object| object["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("image"), ["linux", "small"]);
    assert_eq!(names("vm"), ["before"]);
    assert_eq!(names("disk"), ["kept"]);
    let operations = host.cli.json(&["operation", "list"]).unwrap();
    let install = operations
        .as_array()
        .unwrap()
        .iter()
        .find(|operation| operation["kind"] == "system_install")
        .unwrap();
    assert_eq!(install["status"], "succeeded", "{install}");
}

fn listed<'a>(disks: &'a Value, serial: &str) -> &'a Value {
    let disks = disks.as_array().unwrap();
    disks
        .iter()
        .find(|disk| disk["serial"] == serial)
        .unwrap_or_else(|| panic!("no disk {serial}: {disks:?}"))
}

pub(crate) fn write_at(path: &std::path::Path, at: u64, content: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(content, at).unwrap();
}

fn read_at(path: &std::path::Path, at: u64, length: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut content = vec![0; length];
    let file = std::fs::File::open(path).unwrap();
    file.read_exact_at(&mut content, at).unwrap();
    content
}

#[test]
fn a_stick_becomes_a_host_by_bios() {
    install_and_restart(Firmware::Bios, Medium::Usb, Bus::Nvme, |host| {
        comes_and_goes(host)
    });
}

#[test]
fn a_cd_becomes_a_host_by_uefi() {
    install_and_restart(Firmware::Uefi, Medium::Cd, Bus::Sata, |_| Ok(()));
}

#[test]
#[ignore = "an update is given up after five minutes, which are waited for"]
fn updates_that_hang_or_have_no_network_undo_themselves() {
    install_and_restart(
        Firmware::Bios,
        Medium::Usb,
        Bus::Nvme,
        hung_and_unreachable_come_back,
    );
}

/// The other ways, of which each takes two minutes.
#[test]
#[ignore = "takes ten minutes; the two ways above have everything that differs"]
fn every_firmware_starts_from_every_bus() {
    for (firmware, bus) in [
        (Firmware::Bios, Bus::Sata),
        (Firmware::Bios, Bus::Virtio),
        (Firmware::Uefi, Bus::Nvme),
        (Firmware::Uefi, Bus::Virtio),
    ] {
        install_and_restart(firmware, Medium::Usb, bus, |_| Ok(()));
    }
}
