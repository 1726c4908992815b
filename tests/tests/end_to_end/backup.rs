//! Incremental backups: what changed between two snapshots, put together again by `qemu-img` and by the host.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lodge_tests::host::Host;
use lodge_tests::process::tool;
use lodge_tests::shared::Shared;
use lodge_tests::terminal::GuestConsole;
use lodge_tests::web::{Authority, Web};

use crate::hotplug::tell;

/// Has the guest write numbers without order, `count` MiB from `at` MiB on.
fn write(console: &mut GuestConsole, at: u32, count: u32, name: &str) -> Result<()> {
    let write = format!("dd if=/dev/urandom of=/dev/vda bs=1M seek={at} count={count} conv=fsync");
    tell(console, &write, name).map(drop)
}

fn compare(one: &str, other: &str) -> Result<()> {
    tool("qemu-img", ["compare", one, other]).map(drop)
}

/// The only snapshot that there is.
fn kept_snapshot(host: &Host) -> Result<String> {
    let snapshots = host.cli.json(&["snapshot", "list"])?;
    let snapshots = snapshots.as_array().context("a list")?;
    ensure!(snapshots.len() == 1, "{snapshots:?}");
    let name = snapshots[0]["name"].as_str().context("a name")?;
    Ok(name.to_owned())
}

/// What cannot be said about changes.
fn refusals(host: &Host, folder: &Path) -> Result<()> {
    let name = kept_snapshot(host)?;
    let export = |file: &str, more: &[&str]| {
        let file = folder.join(file).display().to_string();
        let export = ["snapshot", "export", &name, &file, "--since", &name];
        let said = host.cli.fails(&[&export[..], more].concat());
        ensure!(!Path::new(&file).exists(), "{file} is there");
        said
    };
    let said = export("a.qcow2", &["--backing", "/nowhere.qcow2"])?;
    ensure!(said.contains("same folder"), "{said}");
    let said = export("a.raw", &[])?;
    ensure!(said.contains("qcow2 only"), "{said}");
    Ok(())
}

#[test]
fn what_changed_is_backed_up_and_comes_back() {
    let host = Shared::take().unwrap();
    let create = ["disk", "create", "kept", "--size", "256MiB"];
    host.cli.ok(&create).unwrap();
    let options = ["--memory", "192MiB", "--disk", "kept"];
    host.create_guest("worker", "shell", &options).unwrap();
    host.cli.ok(&["vm", "start", "worker"]).unwrap();
    let mut console = GuestConsole::open(&host.cli, "worker").unwrap();
    console.wait("LODGE-GUEST-SHELL").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let backups = at("backups");
    let backup = || host.cli.ok(&["vm", "backup", "worker", &backups]).unwrap();

    write(&mut console, 0, 8, "eight").unwrap();
    write(&mut console, 100, 4, "four").unwrap();
    let said = backup();
    assert!(said.contains("all of it"), "{said}");
    let first = kept_snapshot(&host).unwrap();
    write(&mut console, 2, 1, "one").unwrap();
    write(&mut console, 200, 1, "another").unwrap();
    let forget = "blkdiscard -o 104857600 -l 2097152 /dev/vda";
    tell(&mut console, forget, "two-given-back").unwrap();
    let said = backup();
    assert!(said.contains("since backup 1"), "{said}");
    let second = kept_snapshot(&host).unwrap();
    assert_ne!(first, second, "the next backup begins with the last one's");
    // What comes later is in neither.
    write(&mut console, 0, 1, "later").unwrap();
    refusals(&host, folder.path()).unwrap();

    let whole = at("whole.qcow2");
    host.cli
        .ok(&["snapshot", "export", &second, &whole])
        .unwrap();
    let [full, changes] = [1, 2].map(|number| format!("{backups}/kept.000{number}.qcow2"));
    tool("qemu-img", ["check", "-q", &changes]).unwrap();
    compare(&changes, &whole).unwrap();
    compare(&full, &changes).unwrap_err();
    let size = |file: &str| std::fs::metadata(file).unwrap().len();
    assert!(size(&full) > 12 << 20, "{}", size(&full));
    assert!(size(&changes) < 3 << 20, "{}", size(&changes));

    restore(&host, &backups, &whole, &full).unwrap();
    to_a_bucket(&host, &mut console, folder.path()).unwrap();
    configuration(&host, &backups, folder.path()).unwrap();
}

/// The guest and its disk are lost; the one comes back with the host's configuration, and the other out of its backup.
fn configuration(host: &Host, backups: &str, folder: &Path) -> Result<()> {
    let at = |name: &str| folder.join(name).display().to_string();
    let (file, key, wrong) = (at("host.lodge"), at("passphrase"), at("wrong"));
    std::fs::write(&key, "a good one\n")?;
    std::fs::write(&wrong, "another one\n")?;
    let with = ["--passphrase-file", &key];
    host.cli
        .ok(&[&["config", "backup", &file], &with[..]].concat())?;
    host.cli.ok(&["vm", "kill", "worker"])?;
    host.cli.ok(&["vm", "delete", "worker", "--yes"])?;
    host.cli.ok(&["disk", "delete", "kept", "--yes"])?;
    let restore = ["config", "restore", &file, "--passphrase-file"];
    let said = host.cli.fails(&[&restore[..], &[&wrong]].concat())?;
    ensure!(said.contains("wrong passphrase"), "{said}");
    let shown = host
        .cli
        .ok(&[&restore[..], &[&key, "--preview"]].concat())?;
    let line = |line: &str| line.split_whitespace().eq(["VM", "worker", "added"]);
    ensure!(shown.lines().any(line), "{shown}");
    ensure!(shown.contains("the disk \"kept\""), "{shown}");
    host.cli.fails(&["vm", "show", "worker"])?;
    host.cli.ok(&[&restore[..], &[&key, "--yes"]].concat())?;
    let said = host.cli.fails(&["vm", "start", "worker"])?;
    ensure!(said.contains("there is no disk \"kept\""), "{said}");
    let said = host.cli.ok(&["vm", "restore", backups])?;
    ensure!(said.contains("worker restored from backup 3"), "{said}");
    host.cli.ok(&["vm", "start", "worker"]).map(drop)
}

/// The host backs the guest up to a bucket by itself, in full and what changed, and makes another guest of that.
fn to_a_bucket(host: &Host, console: &mut GuestConsole, folder: &Path) -> Result<()> {
    let authority = Authority::new(folder)?;
    let service = Web::bucket("backups", "KEYID", "the/secret+key", &authority)?;
    let at = |name: &str| folder.join(name).display().to_string();
    let (key, wrong) = (at("key"), at("wrong-key"));
    std::fs::write(&key, "the/secret+key\n")?;
    std::fs::write(&wrong, "another\n")?;
    let endpoint = service.url("");
    let add = ["backup", "target", "add", "cloud", "--endpoint", &endpoint];
    let add = [&add[..], &["--bucket", "backups", "--access-key", "KEYID"]].concat();
    let right = [&add[..], &["--secret-key-file", &key]].concat();
    let wrong = [&add[..], &["--secret-key-file", &wrong]].concat();
    let said = host.cli.fails(&right)?;
    ensure!(said.contains("TLS failed"), "{said}");
    let certificate = authority.certificate.display().to_string();
    host.cli
        .ok(&["system", "authority", "add", "lab", &certificate])?;
    let said = host.cli.fails(&wrong)?;
    ensure!(said.contains("(at /secret_key)"), "{said}");
    host.cli.ok(&right)?;

    let create = ["backup", "create", "worker", "--to", "cloud"];
    let said = host.cli.ok(&create)?;
    ensure!(said.contains("all of it"), "{said}");
    write(console, 30, 1, "for-the-bucket")?;
    let said = host.cli.ok(&create)?;
    ensure!(said.contains("since backup 1"), "{said}");
    let listed = host.cli.json(&["backup", "list", "--target", "cloud"])?;
    let listed = listed.as_array().context("a list")?;
    ensure!(listed.len() == 2 && listed[1]["number"] == 2, "{listed:?}");
    let size = listed[1]["size"].as_u64().context("a size")?;
    ensure!(size < 3 << 20, "{size}");
    let id = listed[1]["id"].as_str().context("an id")?;
    let said = host.cli.ok(&["backup", "verify", id, "--boot"])?;
    ensure!(
        said.contains("is good") && said.contains("serial port"),
        "{said}"
    );
    let guests = host.cli.ok(&["vm", "list"])?;
    ensure!(!guests.contains("verify-"), "{guests}");
    host.cli.ok(&["backup", "restore", id, "cloudy"])?;
    // Nothing was written since.
    let (now, back) = (at("now.qcow2"), at("back.qcow2"));
    host.cli.ok(&["disk", "export", "kept", &now])?;
    host.cli.ok(&["disk", "export", "cloudy-disk0", &back])?;
    compare(&now, &back)?;
    host.cli.ok(&["backup", "target", "remove", "cloud"])?;
    host.cli
        .ok(&["system", "authority", "remove", "lab"])
        .map(drop)
}

/// Makes guests of the backups, whose disks are as they were.
fn restore(host: &Host, backups: &str, whole: &str, full: &str) -> Result<()> {
    let listed = host.cli.ok(&["vm", "backups", backups])?;
    ensure!(
        listed.lines().count() == 3 && listed.contains("MADE OF"),
        "{listed}"
    );
    let said = host.cli.fails(&["vm", "restore", backups])?;
    ensure!(said.contains("a VM worker already"), "{said}");
    let said = host
        .cli
        .fails(&["vm", "restore", backups, "x", "--number", "3"])?;
    ensure!(said.contains("there are: 1 of"), "{said}");
    for (name, number, expected) in [("newest", 2, whole), ("first", 1, full)] {
        let number = number.to_string();
        let restore = ["vm", "restore", backups, name, "--number", &number];
        let said = host.cli.ok(&restore)?;
        ensure!(said.contains(&format!("from backup {number} of")), "{said}");
        let disk = format!("{name}-disk0");
        let vm = host.cli.json(&["vm", "show", name])?;
        ensure!(vm["disks"][0]["disk"] == disk.as_str(), "{vm}");
        let back = format!("{backups}/{name}.qcow2");
        host.cli.ok(&["disk", "export", &disk, &back])?;
        compare(&back, expected)?;
    }
    let images = host.cli.json(&["image", "list"])?;
    let images = images.as_array().context("a list")?;
    let left = |image: &&serde_json::Value| {
        image["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("restore-"))
    };
    ensure!(!images.iter().any(|image| left(&image)), "{images:?}");
    let last = ["vm", "backup", "worker", backups, "--full", "--keep", "1"];
    let said = host.cli.ok(&last)?;
    ensure!(said.contains("number 3 of 1 here"), "{said}");
    ensure!(!Path::new(full).exists() && Path::new(&full.replace("0001", "0003")).exists());
    Ok(())
}
