//! A second disk of the host, with disks of guests on it: made, used, pulled out, plugged in again, grown, and shared.

use anyhow::{Context, Result, ensure};
use lodge_tests::host::{Host, READY};
use lodge_tests::machine::{Builder, Bus, Medium, TARGET_SERIAL};
use lodge_tests::media;
use lodge_tests::terminal::GuestConsole;
use serde_json::{Value, json};

/// Size of the second disk.
const SIZE: u64 = 1 << 30;

/// What used to be on it.
const OLD: &[u8] = b"nobody knows what this is";

/// What the guest does with its disk at first, and whenever it starts again.
const WRITES: &str = "disk-write:/dev/vda:8,poweroff";
const CHECKS: &str = "disk-check:/dev/vda:8,shell";

/// Only a disk that nobody uses, and of which nothing is lost that should not be, becomes a datastore.
fn the_right_disk_is_taken(host: &Host) -> Result<()> {
    let disks = host.cli.json(&["system", "disks"])?;
    let own = disks.as_array().into_iter().flatten();
    let own = own.filter(|disk| disk["in_use"].is_string());
    let own: Vec<&Value> = own.collect();
    ensure!(own.len() == 1, "{disks}");
    let serial = own[0]["serial"].as_str().context("a serial number")?;
    let create = |serial: &str, input: &str| {
        let command = ["datastore", "create", "fast", "--disk", serial];
        host.cli.outcome(&command, input)
    };
    let said = create(serial, "")?.failure()?;
    ensure!(said.contains("holds the data of this host"), "{said}");
    let body = json!({"name": "fast", "disk": TARGET_SERIAL}).to_string();
    let query = ["query", "POST", "/v1/datastores", "--data", &body];
    let said = host.cli.fails(&query)?;
    ensure!(said.contains("is not blank"), "{said}");
    let said = create(TARGET_SERIAL, "other\n")?.failure()?;
    ensure!(said.contains("nothing was done"), "{said}");
    create(TARGET_SERIAL, &format!("{TARGET_SERIAL}\n"))?.success()?;
    let fast = shown(host)?;
    ensure!(
        fast["health"] == "sound" && fast["kind"] == "disk",
        "{fast}"
    );
    ensure!(fast["shares_extents"] == true, "{fast}");
    let said = create(TARGET_SERIAL, "")?.failure()?;
    ensure!(said.contains("already a datastore"), "{said}");
    let again = ["datastore", "create", "more", "--disk", TARGET_SERIAL];
    let said = host.cli.fails(&again)?;
    ensure!(said.contains("datastore \"fast\""), "{said}");
    Ok(())
}

fn shown(host: &Host) -> Result<Value> {
    host.cli.json(&["datastore", "show", "fast"])
}

fn on(host: &Host) -> Result<Value> {
    Ok(host.cli.json(&["disk", "show", "data"])?["datastore"].clone())
}

fn a_guest_writes_to_it(host: &Host) -> Result<()> {
    let disk = ["disk", "create", "data", "--size", "64MiB"];
    host.cli
        .ok(&[&disk[..], &["--datastore", "fast"]].concat())?;
    let options = ["--memory", "128MiB", "--disk", "data"];
    host.create_guest("writer", WRITES, &options)?;
    host.create_guest("checker", CHECKS, &options)?;
    host.cli.ok(&["vm", "start", "writer"])?;
    host.wait_state("writer", "stopped")?;
    let disk = host.cli.json(&["disk", "show", "data"])?;
    ensure!(disk["datastore"] == "fast", "{disk}");
    ensure!(disk["allocated"].as_u64() >= Some(8 << 20), "{disk}");
    Ok(())
}

/// The guest finds what it has written; it runs on.
fn it_is_all_there(host: &Host) -> Result<()> {
    host.cli.ok(&["vm", "start", "checker"])?;
    let console = GuestConsole::open(&host.cli, "checker")?;
    let line = console.wait("LODGE-DISK-CHECK")?;
    console.wait("LODGE-GUEST-SHELL")?;
    ensure!(console.text().contains(" ok"), "{line}");
    ensure!(!console.text().contains(" bad"), "{line}");
    Ok(())
}

fn it_moves_away_and_back(host: &Host) -> Result<()> {
    host.cli.ok(&["snapshot", "create", "checker", "before"])?;
    host.cli.ok(&["disk", "move", "data", "default"])?;
    ensure!(on(host)? == "default");
    let said = host.cli.fails(&["datastore", "delete", "fast"])?;
    ensure!(said.contains("the snapshot before"), "{said}");
    host.cli.ok(&["disk", "move", "data", "fast"])?;
    ensure!(on(host)? == "fast");
    it_is_all_there(host)?;
    let said = host.cli.fails(&["disk", "move", "data", "default"])?;
    ensure!(said.contains("stop the guest first"), "{said}");
    Ok(())
}

/// The datastore is told to be so, with a word of what it is.
fn is_told(host: &Host, health: &str, word: &str) -> Result<()> {
    let said = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        text.contains("The datastore \"fast\"") && text.contains(word)
    };
    host.wait_event("system", |event| Ok(said(&event["message"])))?;
    let fast = shown(host)?;
    ensure!(fast["health"] == health, "{fast}");
    let system = host.cli.json(&["system", "show"])?;
    let mut warnings = system["warnings"].as_array().into_iter().flatten();
    ensure!(warnings.any(said) == (health != "sound"), "{system}");
    Ok(())
}

/// A guest runs with it.
fn its_disk_is_pulled_out(host: &Host) -> Result<()> {
    host.machine
        .sh("sync; echo 1 >/sys/block/vda/device/../remove")?;
    is_told(host, "missing", "Stop the guests that have disks on it")?;
    let create = ["disk", "create", "more", "--size", "1MiB"];
    let said = host
        .cli
        .fails(&[&create[..], &["--datastore", "fast"]].concat())?;
    ensure!(said.contains("missing"), "{said}");
    // All else works on.
    host.cli.ok(&create)?;
    let mut console = GuestConsole::open(&host.cli, "checker")?;
    console.write("dd if=/dev/zero of=/dev/vda bs=1M seek=32 count=1 conv=fsync\n")?;
    let vm = host.wait_state("checker", "paused")?;
    ensure!(vm["status"]["disk_error"]["disk"] == "data", "{vm}");
    host.cli.ok(&["vm", "kill", "checker"])?;
    host.machine.sh("echo 1 >/sys/bus/pci/rescan")?;
    is_told(host, "sound", "is sound")
}

fn it_is_there_after_a_power_cut(host: &mut Host) -> Result<()> {
    let from = host.machine.console.position();
    host.machine.qmp.reset()?;
    host.machine.console.wait_after(from, READY)?;
    let fast = shown(host)?;
    ensure!(fast["health"] == "sound" && fast["disks"] == 1, "{fast}");
    it_is_all_there(host)?;
    host.cli.ok(&["vm", "kill", "checker"])?;
    Ok(())
}

fn it_grows_with_its_disk(host: &mut Host) -> Result<()> {
    let before = shown(host)?["size"].as_u64().context("a size")?;
    let more = json!({"device": "target", "size": 2 * SIZE});
    host.machine.qmp.command("block_resize", &more)?;
    host.cli.ok(&["datastore", "grow", "fast"])?;
    let after = shown(host)?["size"].as_u64().context("a size")?;
    ensure!(after > before + SIZE / 2, "{before} became {after}");
    Ok(())
}

/// A disk that says of itself that it may fail is a warning, for as long as it says so.
fn a_disk_that_may_fail_is_told(host: &mut Host) -> Result<()> {
    let own = |host: &Host| {
        let disks = host.cli.json(&["system", "disks"])?;
        let mut all = disks.as_array().into_iter().flatten();
        let own = all.find(|disk| disk["serial"] == "lodge-data");
        own.cloned().context("the disk with the data")
    };
    let warned = |host: &Host| {
        let system = host.cli.json(&["system", "show"])?;
        let said = system["warnings"].to_string();
        anyhow::Ok(said.contains("may fail soon: it has become unreliable"))
    };
    let well = own(host)?;
    ensure!(well["health"]["problems"] == json!([]), "{well}");
    ensure!(well["health"]["temperature_c"] == 50, "{well}");
    for (bits, is_well) in [(1 << 2, false), (0, true)] {
        let set = json!({
            "path": "/machine/peripheral/data-disk",
            "property": "smart_critical_warning",
            "value": bits,
        });
        host.machine.qmp.command("qom-set", &set)?;
        let disk = own(host)?;
        let problems = disk["health"]["problems"].as_array();
        ensure!(
            problems.is_some_and(|all| all.is_empty() == is_well),
            "{disk}"
        );
        ensure!(warned(host)? != is_well);
    }
    Ok(())
}

fn it_is_given_up(host: &Host) -> Result<()> {
    host.cli.ok(&["snapshot", "delete", "before", "--yes"])?;
    host.cli
        .ok(&["vm", "delete", "checker", "writer", "--yes"])?;
    host.cli.ok(&["disk", "delete", "data", "--yes"])?;
    host.cli.ok(&["datastore", "delete", "fast"])?;
    let disks = host.cli.json(&["system", "disks"])?;
    let mut disks = disks.as_array().into_iter().flatten();
    let disk = disks
        .find(|disk| disk["serial"] == TARGET_SERIAL)
        .context("the disk")?;
    ensure!(disk["in_use"].is_null(), "{disk}");
    ensure!(disk["contents"][0] == "xfs \"lodge-store\"", "{disk}");
    let create = ["datastore", "create", "fast", "--disk", TARGET_SERIAL];
    host.cli.ok(&[&create[..], &["--adopt"]].concat())?;
    host.cli.ok(&["datastore", "delete", "fast"])?;
    host.cli.ok(&[&create[..], &["--erase"]].concat())?;
    ensure!(shown(host)?["health"] == "sound");
    host.cli.ok(&["datastore", "delete", "fast"])?;
    Ok(())
}

#[test]
fn a_second_disk_holds_disks_of_guests() {
    let directory = tempfile::tempdir().unwrap();
    let disk = media::blank_disk(directory.path(), "second.raw", SIZE).unwrap();
    crate::installation::write_at(&disk, 1 << 16, OLD);
    let builder = Builder::new()
        .medium(Medium::Shell)
        .data_disk(512 << 20)
        .target_disk(&disk, Bus::Virtio);
    let mut host = Host::boot(builder).unwrap();
    host.upload_unpacked_guest().unwrap();
    the_right_disk_is_taken(&host).unwrap();
    a_guest_writes_to_it(&host).unwrap();
    it_moves_away_and_back(&host).unwrap();
    its_disk_is_pulled_out(&host).unwrap();
    it_is_there_after_a_power_cut(&mut host).unwrap();
    it_grows_with_its_disk(&mut host).unwrap();
    a_disk_that_may_fail_is_told(&mut host).unwrap();
    it_is_given_up(&host).unwrap();
    crate::nvme::a_disk_is_shared(&mut host).unwrap();
    host.shut_down().unwrap();
}
