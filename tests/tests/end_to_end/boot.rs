//! The ISO boots on every kind of machine, says how to reach it, and switches off in order.

use anyhow::{Result, ensure};
use lodge_tests::curl::Curl;
use lodge_tests::host::{Host, SEED};
use lodge_tests::machine::{Builder, Firmware, Medium, Nic};

fn boots_without_a_seed(firmware: Firmware, medium: Medium, nic: Nic, kind: &str) -> Result<()> {
    let builder = Builder::new()
        .firmware(firmware)
        .medium(medium)
        .nics(&[nic])
        .cpus(2)
        .memory_mib(1536);
    let mut host = Host::boot_with_password(&builder, None)?;
    let system = host.cli.json(&["system", "show"])?;
    ensure!(system["hardware"]["firmware"] == kind, "{system}");
    ensure!(system["kvm"]["usable"] == true, "{system}");
    ensure!(system["hardware"]["threads"] == 2, "{system}");
    ensure!(system["storage"]["kind"] == "ram", "{system}");
    let warnings = system["warnings"].to_string();
    ensure!(
        warnings.contains("lost at power-off"),
        "no warning about data in memory: {warnings}"
    );
    ensure!(
        host.machine.console.text().contains("lost at power-off"),
        "no warning on the console"
    );
    ensure!(
        system["links"][0]["mac"] == lodge_tests::machine::mac(0),
        "{system}"
    );

    let info = Curl::new(host.machine.port).get("/v1")?;
    ensure!(
        info.status == 200 && info.json()?["product"] == "lodge",
        "{info:?}"
    );
    host.machine.qmp.power_button()?;
    host.machine.wait_off()
}

#[test]
fn bios_from_a_cd_with_an_intel_card() {
    boots_without_a_seed(Firmware::Bios, Medium::Cd, Nic::E1000e, "bios").unwrap();
}

#[test]
fn bios_from_a_usb_stick_with_a_virtio_card() {
    boots_without_a_seed(Firmware::Bios, Medium::Usb, Nic::Virtio, "bios").unwrap();
}

#[test]
fn uefi_from_a_cd_with_a_virtio_card() {
    boots_without_a_seed(Firmware::Uefi, Medium::Cd, Nic::Virtio, "uefi").unwrap();
}

#[test]
fn uefi_from_a_usb_stick_with_an_intel_card() {
    boots_without_a_seed(Firmware::Uefi, Medium::Usb, Nic::E1000e, "uefi").unwrap();
}

#[test]
fn a_bad_seed_is_named_on_the_screen_and_does_not_stop_the_boot() {
    let seed = SEED.replace("password =", "pasword =");
    let mut host =
        Host::boot_with_password(&Builder::new().seed(&seed).memory_mib(1536), None).unwrap();
    let console = host.machine.console.text();
    assert!(console.contains("seed.toml"), "{console}");
    assert!(
        console.contains("pasword"),
        "the console does not name the field:\n{console}"
    );
    let system = host.cli.json(&["system", "show"]).unwrap();
    assert!(
        system["warnings"].to_string().contains("pasword"),
        "{system}"
    );

    // Ctrl-Alt-Del restarts the host in order.
    let begin = host.machine.console.position();
    host.machine.qmp.ctrl_alt_delete().unwrap();
    let console = &host.machine.console;
    console.wait_after(begin, "lodge-init: Lodge ").unwrap();
    console
        .wait_after(begin, "Press Enter for the console")
        .unwrap();
    let told = console.text()[begin..].to_owned();
    let (last_words, _) = told.split_once("Booting `Lodge'").unwrap();
    assert!(
        last_words.contains("the machine will restart"),
        "nothing was said:\n{last_words}"
    );
}
