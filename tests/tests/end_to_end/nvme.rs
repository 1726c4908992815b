//! A disk of the host that other machines can use, of which the host itself is one: over its own address. A part of the test of datastores,
//! which has a disk for it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lodge_tests::host::{Host, READY};
use lodge_tests::machine::TARGET_SERIAL;
use lodge_tests::process::tool;
use serde_json::Value;

/// Another host, and a subsystem that is nowhere.
const STRANGER: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555";

const ADDRESS: [&str; 2] = ["--address", "127.0.0.1"];

/// An export of the disk for a host.
struct Export {
    nqn: String,
    serial: String,
}

fn export(host: &Host, allowed: &str, more: &[&str]) -> Result<Export> {
    let command = ["nvme", "export", "shared", "--disk", TARGET_SERIAL];
    let to = ["--allow", allowed];
    host.cli.ok(&[&command[..], &to, more].concat())?;
    let exports = host.cli.json(&["nvme", "exports"])?;
    let export = &exports[0];
    ensure!(export["active"] == true, "{export}");
    let text = |field: &str| anyhow::Ok(export[field].as_str().context("a text")?.to_owned());
    Ok(Export {
        nqn: text("nqn")?,
        serial: text("serial")?,
    })
}

fn connect(nqn: &str) -> Vec<&str> {
    let command = ["nvme", "connect", "far", "--nqn", nqn];
    [&command[..], &ADDRESS].concat()
}

fn own_name(host: &Host) -> Result<String> {
    let system = host.cli.json(&["system", "show"])?;
    let name = system["nvme_nqn"].as_str().context("the host's name")?;
    Ok(name.to_owned())
}

fn disk(host: &Host, serial: &str) -> Result<Value> {
    let disks = host.cli.json(&["system", "disks"])?;
    let mut all = disks.as_array().into_iter().flatten();
    let found = all.find(|disk| disk["serial"] == serial).cloned();
    found.with_context(|| format!("no disk {serial}: {disks}"))
}

/// Who may not use it, and who asks for something else, is told what to do.
fn only_who_is_allowed(host: &Host) -> Result<()> {
    let said = host.cli.fails(&connect(STRANGER))?;
    ensure!(said.contains("cannot be reached"), "{said}");
    let own = own_name(host)?;
    let shared = export(host, STRANGER, &["--erase"])?;
    let said = host.cli.fails(&connect(&shared.nqn))?;
    ensure!(said.contains("does not allow this host"), "{said}");
    ensure!(said.contains(&own), "{said}");
    let offers = host.cli.json(&["nvme", "discover", "127.0.0.1"])?;
    ensure!(offers.as_array().is_some_and(Vec::is_empty), "{offers}");
    let said = host.cli.fails(&connect(STRANGER))?;
    ensure!(said.contains("no subsystem of that name"), "{said}");
    host.cli.ok(&["nvme", "unexport", "shared"])?;
    let again = export(host, &own, &[])?;
    ensure!(again.nqn == shared.nqn, "{} is another", again.nqn);
    let offers = host.cli.json(&["nvme", "discover", "127.0.0.1"])?;
    ensure!(offers[0]["nqn"] == again.nqn.as_str(), "{offers}");
    let used = disk(host, TARGET_SERIAL)?;
    let why = used["in_use"].as_str().unwrap_or_default();
    ensure!(why.contains("exported to other machines"), "{used}");
    let create = ["datastore", "create", "near", "--disk", TARGET_SERIAL];
    let said = host.cli.fails(&create)?;
    ensure!(said.contains("exported to other machines"), "{said}");
    host.cli.ok(&connect(&again.nqn))?;
    let far = disk(host, &again.serial)?;
    ensure!(far["transport"] == "nvme-tcp", "{far}");
    ensure!(far["contents"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}

fn a_disk_of_guests_is_on_it(host: &Host, content: &Path) -> Result<()> {
    let connection = host.cli.json(&["nvme", "show", "far"])?;
    ensure!(connection["state"] == "live", "{connection}");
    let serial = connection["disks"][0].as_str().context("a disk")?;
    let create = ["datastore", "create", "far", "--disk", serial];
    host.cli.ok(&create)?;
    host.upload(content, "content", "disk")?;
    let disk = ["disk", "create", "remote", "--image", "content"];
    host.cli
        .ok(&[&disk[..], &["--datastore", "far"]].concat())?;
    let said = host.cli.fails(&["nvme", "disconnect", "far"])?;
    ensure!(said.contains("datastore \"far\""), "{said}");
    Ok(())
}

fn is_told(host: &Host, words: [&str; 2]) -> Result<()> {
    let told = |event: &Value| {
        let text = event["message"].as_str().unwrap_or_default();
        Ok(words.iter().all(|word| text.contains(word)))
    };
    host.wait_event("system", told).map(drop)
}

/// It is the same disk when it is exported again, and all goes on by itself.
fn it_is_gone_and_comes_back(host: &Host) -> Result<()> {
    host.cli.ok(&["nvme", "unexport", "shared"])?;
    is_told(host, ["NVMe connection \"far\"", "is lost"])?;
    is_told(host, ["The datastore \"far\"", "is missing"])?;
    export(host, &own_name(host)?, &[])?;
    is_told(host, ["NVMe connection \"far\"", "is there again"])?;
    is_told(host, ["The datastore \"far\"", "is sound"])
}

fn it_is_there_after_a_power_cut(host: &mut Host, content: &Path) -> Result<()> {
    let from = host.machine.console.position();
    host.machine.qmp.reset()?;
    host.machine.console.wait_after(from, READY)?;
    let connection = host.cli.json(&["nvme", "show", "far"])?;
    ensure!(connection["state"] == "live", "{connection}");
    let datastore = host.cli.json(&["datastore", "show", "far"])?;
    ensure!(datastore["health"] == "sound", "{datastore}");
    let back = content.with_extension("back.raw");
    let back = back.to_string_lossy();
    host.cli.ok(&["disk", "export", "remote", &back])?;
    tool("qemu-img", ["compare", &content.to_string_lossy(), &back])?;
    Ok(())
}

/// Uses the disk [`TARGET_SERIAL`], which nothing else does any more.
pub fn a_disk_is_shared(host: &mut Host) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let content = folder.path().join("content.raw");
    let bytes: Vec<u8> = (0..4_u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&content, bytes)?;
    only_who_is_allowed(host)?;
    a_disk_of_guests_is_on_it(host, &content)?;
    it_is_gone_and_comes_back(host)?;
    it_is_there_after_a_power_cut(host, &content)
}
