//! An installed host takes another version of itself, and goes back by itself when that one does not come up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lodge_tests::artifacts;
use lodge_tests::host::{Host, READY};
use lodge_tests::process::{run, tool};
use lodge_tests::terminal::GuestConsole;
use lodge_tests::web::Web;
use serde_json::Value;

/// What the version in these tests is called.
const OTHER_VERSION: &str = "9.9.9";

/// Words of the kernel's command line in place of which there may be others.
const SPARE: &str = "log_buf_len=4M panic=10 cryptomgr.notests";
/// With these the kernel finds no first process.
const NO_INIT: &str = "panic=10 rdinit=/not/there";
/// With these it finds none, and stays where it is.
const HANGS: &str = "panic=0 rdinit=/not/there";
/// With these the host has no network, hence nobody reaches its API.
const NO_NETWORK: &str = "panic=10 module_blacklist=virtio_net";

/// Refused files, an update that panics at its start, one that works, and the way back from it. A guest lives through all of it.
pub fn comes_and_goes(host: &Host) -> Result<()> {
    let key = host.machine.directory().join("first.key");
    let good = signed(host, "good", &key, other_version(&iso()?)?)?;
    refusals(host, &good)?;
    let mut ticker = Ticker::start(host)?;
    let broken = signed(host, "broken", &key, with_options(&iso()?, NO_INIT)?)?;
    undoes_itself(host, &broken)?;
    ticker.went_on(host)?;
    stays(host, &good)?;
    ticker.went_on(host)?;
    ticker.end(host)?;
    let back = ["system", "rollback", "--no-restart"];
    host.cli.ok(&back)?;
    assert_eq!(images(host)?, ["a - next_trial", "b runs default"]);
    host.cli.ok(&back)?;
    assert_eq!(images(host)?, ["a - spare", "b runs default"]);
    Ok(())
}

/// An update that hangs, until somebody presses the button, and one with which nobody reaches the host any more.
pub fn hung_and_unreachable_come_back(host: &mut Host) -> Result<()> {
    let key = host.machine.directory().join("first.key");
    let hangs = signed(host, "hangs", &key, with_options(&iso()?, HANGS)?)?;
    let public = text(&key.with_extension("pub"));
    host.cli.ok(&["system", "update-key", "add", &public])?;
    let from = host.machine.console.position();
    host.cli.ok(&["system", "update", &text(&hangs), "--yes"])?;
    host.machine.console.wait_panic(from)?;
    host.machine.qmp.reset()?;
    is_back(host)?;
    unreachable_comes_back(host, &key)
}

/// It is given up after five minutes.
fn unreachable_comes_back(host: &Host, key: &Path) -> Result<()> {
    let broken = signed(host, "broken", key, with_options(&iso()?, NO_NETWORK)?)?;
    let mut ticker = Ticker::start(host)?;
    let console = &host.machine.console;
    let from = console.position();
    host.cli
        .ok(&["system", "update", &text(&broken), "--yes"])?;
    console.wait_after(from, "reboot: Restarting system")?;
    let trial = console.position();
    console.wait_after(trial, "lodge-init: Lodge ")?;
    // It says nothing for as long as it hopes.
    let given_up = || console.wait_after(trial, "this version of Lodge has not come up");
    given_up().or_else(|_| given_up()).or_else(|_| given_up())?;
    is_back(host)?;
    ticker.went_on(host)?;
    ticker.end(host)
}

fn undoes_itself(host: &Host, broken: &Path) -> Result<()> {
    let from = host.machine.console.position();
    let update = ["system", "update", &text(broken), "--yes"];
    host.cli.ok(&update)?;
    host.machine.console.wait_panic(from)?;
    is_back(host)
}

/// The version before is there again, and says why.
fn is_back(host: &Host) -> Result<()> {
    ready_again(host, host.machine.console.position())?;
    assert_eq!(images(host)?, ["a runs default", "b - failed"]);
    let system = host.cli.json(&["system", "show"])?;
    let warnings = system["warnings"].to_string();
    assert!(
        warnings.contains("The last update did not work"),
        "{system}"
    );
    Ok(())
}

fn stays(host: &Host, good: &Path) -> Result<()> {
    let from = host.machine.console.position();
    // From a web server, to which the host goes by itself.
    let web = Web::serve(good.parent().context("a folder")?)?;
    let file = good.file_name().context("a file")?;
    let url = web.url(&file.to_string_lossy());
    host.cli.ok(&["system", "update", &url, "--yes"])?;
    comes_up(host, from)?;
    assert_eq!(images(host)?, ["a - spare", "b runs default"]);
    let list = host.cli.ok(&["system", "images"])?;
    assert!(list.contains(OTHER_VERSION), "{list}");
    let system = host.cli.json(&["system", "show"])?;
    let warnings = system["warnings"].to_string();
    assert!(!warnings.contains("last update"), "{system}");
    Ok(())
}

/// The new version starts, and finds that all is well with it. `from` is where the console was before the update.
fn comes_up(host: &Host, from: usize) -> Result<()> {
    let console = &host.machine.console;
    console.wait_after(from, "reboot: Restarting system")?;
    ready_again(host, console.position())?;
    is_kept(host)
}

/// Waits until the version that is tried is the one that starts from now on.
pub(crate) fn is_kept(host: &Host) -> Result<()> {
    host.wait_event("system", |event| {
        let message = event["message"].as_str().unwrap_or_default();
        Ok(message.contains("is the one that starts from now on"))
    })
    .map(drop)
}

/// A guest that counts.
struct Ticker(u64);

impl Ticker {
    const NAME: &str = "ticker";

    fn start(host: &Host) -> Result<Self> {
        host.create_guest(Self::NAME, "tick:1", &["--memory", "128MiB"])?;
        host.cli.ok(&["vm", "start", Self::NAME])?;
        let console = GuestConsole::open(&host.cli, Self::NAME)?;
        console.wait("LODGE-TICK 3 ")?;
        Ok(Self(3))
    }

    /// It counts on from where it was, and has not booted.
    fn went_on(&mut self, host: &Host) -> Result<()> {
        host.wait_state(Self::NAME, "running")?;
        let console = GuestConsole::open(&host.cli, Self::NAME)?;
        let line = console.wait("LODGE-TICK ")?;
        let count = line.split(' ').next().unwrap_or_default().parse()?;
        ensure!(count > self.0, "{line}, and it was at {} before", self.0);
        let said = console.text();
        ensure!(!said.contains("LODGE-GUEST-READY"), "{said}");
        self.0 = count;
        Ok(())
    }

    fn end(self, host: &Host) -> Result<()> {
        host.cli.ok(&["vm", "kill", Self::NAME])?;
        host.cli.ok(&["vm", "delete", Self::NAME, "--yes"])?;
        Ok(())
    }
}

/// Files that must change nothing.
fn refusals(host: &Host, good: &Path) -> Result<()> {
    let directory = host.machine.directory();
    let fails = |file: &Path| host.cli.fails(&["system", "update", &text(file), "--yes"]);
    let said = host.cli.fails(&["system", "rollback", "--yes"])?;
    assert!(said.contains("there is no other image"), "{said}");
    let said = fails(good)?;
    assert!(said.contains("trusts no key"), "{said}");

    // What is refused for its signature is not looked into: the beginning of an image does, in a fraction of the time.
    let mut beginning = iso()?;
    beginning.truncate(1 << 20);
    let other = directory.join("other.key");
    let stranger = signed(host, "stranger", &other, beginning.clone())?;
    let add_key = |key: &str| {
        host.cli
            .ok(&["system", "update-key", "add", &text(&directory.join(key))])
    };
    add_key("first.pub")?;
    let said = fails(&stranger)?;
    assert!(
        said.contains("a key that this host does not trust"),
        "{said}"
    );
    nothing_changed(host)?;

    let content = fs::read(signed(
        host,
        "beginning",
        &directory.join("first.key"),
        beginning,
    )?)?;
    let cut = directory.join("cut");
    fs::write(&cut, &content[..content.len() / 2])?;
    let said = fails(&cut)?;
    assert!(said.contains("no signature at its end"), "{said}");
    let changed = directory.join("changed");
    let mut flipped = content;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&changed, flipped)?;
    let said = fails(&changed)?;
    assert!(said.contains("not that of this file"), "{said}");
    nothing_changed(host)
}

fn nothing_changed(host: &Host) -> Result<()> {
    assert_eq!(images(host)?, ["a runs default", "b - empty"]);
    Ok(())
}

/// Waits until the host is there after a restart.
fn ready_again(host: &Host, from: usize) -> Result<()> {
    host.machine.console.wait_after(from, READY).map(drop)
}

/// Both images, as slot, whether it runs, and when it starts.
fn images(host: &Host) -> Result<Vec<String>> {
    let list = host.cli.json(&["system", "images"])?;
    let list = list.as_array().context("no list")?;
    let word = |image: &Value, name: &str| image[name].as_str().unwrap_or_default().to_owned();
    let line = |image: &Value| {
        let runs = if image["running"] == true {
            "runs"
        } else {
            "-"
        };
        format!("{} {runs} {}", word(image, "slot"), word(image, "state"))
    };
    Ok(list.iter().map(line).collect())
}

pub(crate) fn iso() -> Result<Vec<u8>> {
    Ok(fs::read(artifacts::iso())?)
}

/// The same image with another version in its list of contents.
pub(crate) fn other_version(iso: &[u8]) -> Result<Vec<u8>> {
    let at = find(iso, b"version ", b"\nsha256 ").context("no version in the ISO")?;
    let end = at
        + iso[at..]
            .iter()
            .position(|byte| *byte == b'\n')
            .context("no end")?;
    let version = &iso[at + b"version ".len()..end];
    ensure!(version.len() == OTHER_VERSION.len(), "{version:?}");
    let mut changed = iso.to_owned();
    changed[end - version.len()..end].copy_from_slice(OTHER_VERSION.as_bytes());
    Ok(changed)
}

/// An image whose kernel is given these words instead of the [`SPARE`] ones. All its checksums are right.
fn with_options(iso: &[u8], words: &str) -> Result<Vec<u8>> {
    let options = fs::read(artifacts::root().join("initramfs/grub/options.cfg"))?;
    let padded = format!("{words:width$}", width = SPARE.len());
    let broken = String::from_utf8(options.clone())?.replace(SPARE, &padded);
    let (before, after) = (sha256(&options)?, sha256(broken.as_bytes())?);
    ensure!(before != after, "{SPARE} is not in options.cfg");
    let changed = replace(iso, &options, broken.as_bytes())?;
    replace(&changed, before.as_bytes(), after.as_bytes())
}

fn replace(content: &[u8], before: &[u8], after: &[u8]) -> Result<Vec<u8>> {
    let at = find(content, before, b"").context("not in the ISO")?;
    let mut changed = content.to_owned();
    changed[at..at + before.len()].copy_from_slice(after);
    Ok(changed)
}

/// Where `start` is, with `end` not far behind it.
fn find(content: &[u8], start: &[u8], end: &[u8]) -> Option<usize> {
    let near = 64;
    let mut from = 0;
    loop {
        let first = content[from..].iter().position(|byte| *byte == start[0])?;
        from += first;
        let rest = &content[from..];
        if let Some(behind) = rest.strip_prefix(start)
            && (end.is_empty()
                || behind[..near.min(behind.len())]
                    .windows(end.len())
                    .any(|w| w == end))
        {
            return Some(from);
        }
        from += 1;
    }
}

fn sha256(content: &[u8]) -> Result<String> {
    let said = run(&mut Command::new("sha256sum"), content)?.success()?;
    Ok(said
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// Signs an image, with a key that is made when it is missing.
fn signed(host: &Host, name: &str, key: &Path, content: Vec<u8>) -> Result<PathBuf> {
    sign(host.machine.directory(), name, key, content)
}

/// The same, with the files in that folder.
pub(crate) fn sign(directory: &Path, name: &str, key: &Path, content: Vec<u8>) -> Result<PathBuf> {
    let iso = directory.join(format!("{name}.iso"));
    fs::write(&iso, content)?;
    let output = directory.join(format!("{name}.update"));
    let script = artifacts::root().join("scripts/sign");
    let arguments = [
        "--key".as_ref(),
        key.as_os_str(),
        "--iso".as_ref(),
        iso.as_os_str(),
        "--output".as_ref(),
        output.as_os_str(),
    ];
    tool(&text(&script), arguments)?;
    Ok(output)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
