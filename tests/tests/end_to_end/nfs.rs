//! A directory of an NFS server, with disks of guests in it: refused, made, used, without its server for a while, and taken by another host.

use anyhow::{Result, ensure};
use lodge_tests::host::{Host, READY};
use lodge_tests::machine::{Builder, Medium};
use lodge_tests::nfs::Nfs;
use lodge_tests::terminal::GuestConsole;
use serde_json::Value;

/// What the guest does with its disk at first, and whenever it starts again.
const WRITES: &str = "disk-write:/dev/vda:4,shell";
const CHECKS: &str = "disk-check:/dev/vda:4,shell";

/// What is typed there, and what it says at its end.
const WRITE_MORE: &str =
    "dd if=/dev/zero of=/dev/vda bs=1M seek=8 count=1 conv=fsync && echo wrote-it-$((40 + 2))\n";
const WRITTEN: &str = "wrote-it-42";

/// The directory of the server.
const LAB: &str = "lab";

fn create(nfs: &Nfs, name: &'static str, directory: &str) -> Vec<String> {
    let (path, port) = (nfs.path(directory), nfs.port());
    let command = ["datastore", "create", name, "--nfs", &path, "--port", &port];
    command.map(str::to_owned).to_vec()
}

fn succeeds(host: &Host, command: &[String]) -> Result<String> {
    host.cli
        .ok(&command.iter().map(String::as_str).collect::<Vec<_>>())
}

fn fails(host: &Host, command: &[String]) -> Result<String> {
    host.cli
        .fails(&command.iter().map(String::as_str).collect::<Vec<_>>())
}

fn shown(host: &Host) -> Result<Value> {
    host.cli.json(&["datastore", "show", "nas"])
}

fn what_cannot_be_is_refused(host: &Host, nfs: &Nfs) -> Result<()> {
    let said = fails(host, &create(nfs, "nas", "missing"))?;
    ensure!(said.contains("the server has no directory"), "{said}");
    let mut nobody = create(nfs, "nas", LAB);
    "1".clone_into(&mut nobody[6]);
    let said = fails(host, &nobody)?;
    ensure!(said.contains("10.0.2.2:1 does not answer"), "{said}");
    let adopted = [create(nfs, "nas", LAB), vec!["--adopt".to_owned()]].concat();
    let said = fails(host, &adopted)?;
    ensure!(said.contains("no datastore of Lodge is there"), "{said}");
    let left = nfs.at(LAB).read_dir()?.count();
    ensure!(left == 0, "{left} files are in the directory");
    ensure!(
        host.cli
            .json(&["datastore", "list"])?
            .as_array()
            .map(Vec::len)
            == Some(1)
    );
    Ok(())
}

fn guests_have_disks_there(host: &Host, nfs: &Nfs) -> Result<()> {
    succeeds(host, &create(nfs, "nas", LAB))?;
    let nas = shown(host)?;
    ensure!(nas["health"] == "sound" && nas["kind"] == "nfs", "{nas}");
    ensure!(nas["device"] == nfs.path(LAB), "{nas}");
    ensure!(nas["nfs"]["server"] == "10.0.2.2", "{nas}");
    let said = fails(host, &create(nfs, "again", LAB))?;
    ensure!(said.contains("it is the datastore \"nas\""), "{said}");
    let disk = ["disk", "create", "data", "--size", "16MiB"];
    host.cli
        .ok(&[&disk[..], &["--datastore", "nas"]].concat())?;
    let options = ["--memory", "128MiB", "--disk", "data"];
    host.create_guest("writer", WRITES, &options)?;
    host.create_guest("checker", CHECKS, &options)?;
    host.cli.ok(&["snapshot", "create", "checker", "before"])?;
    host.cli.ok(&["disk", "move", "data", "default"])?;
    host.cli.ok(&["disk", "move", "data", "nas"])?;
    let disk = host.cli.json(&["disk", "show", "data"])?;
    ensure!(disk["datastore"] == "nas", "{disk}");
    let files = nfs.at(LAB).join("disks").read_dir()?.count();
    ensure!(files == 1, "{files} files");
    Ok(())
}

fn is_told(host: &Host, word: &str) -> Result<()> {
    let said = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        text.contains("The datastore \"nas\"") && text.contains(word)
    };
    host.wait_event("system", |event| Ok(said(&event["message"])))?;
    Ok(())
}

/// It runs on.
fn a_guest_writes(host: &Host) -> Result<GuestConsole> {
    host.cli.ok(&["vm", "start", "writer"])?;
    let console = GuestConsole::open(&host.cli, "writer")?;
    console.wait("LODGE-GUEST-SHELL")?;
    Ok(console)
}

/// The guest waits for its server, and so does nobody else.
fn its_server_restarts(host: &Host, nfs: &mut Nfs) -> Result<()> {
    let mut console = a_guest_writes(host)?;
    nfs.kill()?;
    console.write(WRITE_MORE)?;
    is_told(host, "does not answer")?;
    let disks = host.cli.json(&["disk", "list"])?;
    ensure!(disks[0]["name"] == "data", "{disks}");
    let more = ["disk", "create", "more", "--size", "1MiB"];
    let said = host
        .cli
        .fails(&[&more[..], &["--datastore", "nas"]].concat())?;
    ensure!(said.contains("the datastore is missing"), "{said}");
    host.cli.ok(&more)?;
    nfs.restart()?;
    is_told(host, "is sound")?;
    console.wait(WRITTEN)?;
    Ok(())
}

/// A guest that starts with the host waits for the datastore, and that for its server.
fn it_is_there_after_a_power_cut(host: &mut Host, nfs: &mut Nfs) -> Result<()> {
    host.cli
        .ok(&["vm", "set", "checker", "--autostart", "true"])?;
    nfs.kill()?;
    let from = host.machine.console.position();
    host.machine.qmp.reset()?;
    host.machine.console.wait_after(from, READY)?;
    let nas = shown(host)?;
    ensure!(nas["health"] == "missing", "{nas}");
    ensure!(
        nas["problem"].to_string().contains("does not answer"),
        "{nas}"
    );
    let vm = host.vm("checker")?;
    ensure!(vm["status"]["state"] == "stopped", "{vm}");
    nfs.restart()?;
    host.wait_state("checker", "running")?;
    let nas = shown(host)?;
    ensure!(nas["health"] == "sound" && nas["disks"] == 1, "{nas}");
    let console = GuestConsole::open(&host.cli, "checker")?;
    let line = console.wait("LODGE-DISK-CHECK")?;
    console.wait("LODGE-GUEST-SHELL")?;
    ensure!(console.text().contains(" ok"), "{line}");
    ensure!(!console.text().contains(" bad"), "{line}");
    host.cli.ok(&["vm", "kill", "checker"])?;
    Ok(())
}

/// Nothing is left behind of one that nobody needs.
fn it_is_given_up(host: &Host, nfs: &Nfs) -> Result<()> {
    host.cli.ok(&["snapshot", "delete", "before", "--yes"])?;
    host.cli
        .ok(&["vm", "delete", "checker", "writer", "--yes"])?;
    host.cli.ok(&["disk", "delete", "data", "--yes"])?;
    host.cli.ok(&["datastore", "delete", "nas"])?;
    let left = nfs.at(LAB).read_dir()?.count();
    ensure!(left == 0, "{left} files are in the directory");
    Ok(())
}

/// What another host says is its own is not touched.
fn another_host_has_one(host: &Host, nfs: &Nfs) -> Result<()> {
    let theirs = nfs.at("theirs");
    std::fs::create_dir_all(theirs.join("disks"))?;
    std::fs::create_dir_all(theirs.join("snapshots"))?;
    let owner = r#"{"id":"0193e2b0-0000-7000-8000-000000000001","host":"0193e2b0-0000-7000-8000-000000000002","hostname":"attic"}"#;
    std::fs::write(theirs.join("lodge-datastore.json"), owner)?;
    std::fs::write(theirs.join("disks/.new-1"), "half a file")?;
    let said = fails(host, &create(nfs, "theirs", "theirs"))?;
    ensure!(
        said.contains("a datastore of the host \"attic\" is there"),
        "{said}"
    );
    ensure!(theirs.join("disks/.new-1").exists());
    let adopt = [create(nfs, "theirs", "theirs"), vec!["--adopt".to_owned()]].concat();
    succeeds(host, &adopt)?;
    let shown = host.cli.json(&["datastore", "show", "theirs"])?;
    ensure!(
        shown["id"] == "0193e2b0-0000-7000-8000-000000000001",
        "{shown}"
    );
    host.cli.ok(&["datastore", "delete", "theirs"])?;
    Ok(())
}

/// Until its guests are paused, which takes the kernel minutes of patience: run it by name.
#[test]
#[ignore = "takes two minutes"]
fn a_server_is_gone_for_minutes() {
    let directory = tempfile::tempdir().unwrap();
    let mut nfs = Nfs::serve(directory.path()).unwrap();
    std::fs::create_dir(nfs.at(LAB)).unwrap();
    let host = Host::boot(Builder::new().medium(Medium::Shell).data_disk(512 << 20)).unwrap();
    host.upload_unpacked_guest().unwrap();
    guests_have_disks_there(&host, &nfs).unwrap();
    let mut console = a_guest_writes(&host).unwrap();
    nfs.kill().unwrap();
    console.write(WRITE_MORE).unwrap();
    let vm = host.wait_state("writer", "paused").unwrap();
    assert_eq!(vm["status"]["disk_error"]["disk"], "data", "{vm}");
    nfs.restart().unwrap();
    is_told(&host, "is sound").unwrap();
    console.wait(WRITTEN).unwrap();
    assert_eq!(host.vm("writer").unwrap()["status"]["state"], "running");
    host.shut_down().unwrap();
}

#[test]
fn a_server_holds_disks_of_guests() {
    let directory = tempfile::tempdir().unwrap();
    let mut nfs = Nfs::serve(directory.path()).unwrap();
    std::fs::create_dir(nfs.at(LAB)).unwrap();
    let builder = Builder::new().medium(Medium::Shell).data_disk(512 << 20);
    let mut host = Host::boot(builder).unwrap();
    host.upload_unpacked_guest().unwrap();
    what_cannot_be_is_refused(&host, &nfs).unwrap();
    guests_have_disks_there(&host, &nfs).unwrap();
    its_server_restarts(&host, &mut nfs).unwrap();
    it_is_there_after_a_power_cut(&mut host, &mut nfs).unwrap();
    it_is_given_up(&host, &nfs).unwrap();
    another_host_has_one(&host, &nfs).unwrap();
    host.shut_down().unwrap();
}
