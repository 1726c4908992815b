//! The power is cut while a host is being installed, and while it is being updated: it is then what it was before, or whole.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lodge_tests::host::{Host, PASSWORD};
use lodge_tests::machine::{Builder, Bus, Medium, TARGET_SERIAL};
use lodge_tests::media;
use lodge_tests::process::tool;
use lodge_tests::volatile_disk::VolatileDisk;
use lodge_tests::web::Web;
use serde_json::Value;

use crate::power_cuts::{Random, setting};
use crate::update::{iso, other_version, sign};

/// How many installations are cut, and as many updates of each, unless `LODGE_TEST_INSTALL_CUTS` says otherwise.
const INSTALLATIONS: u64 = 1;
const UPDATES: u64 = 2;

/// What choices are made by, unless `LODGE_TEST_SEED` says otherwise.
const SEED: u64 = 20_261_201;

/// Size of the disk.
const SIZE: u64 = 4 << 30;

/// The longest time between the request and the cut, in milliseconds: of an installation, and of an update with the restart.
const INSTALLATION: u64 = 18_000;
const UPDATE: u64 = 40_000;

const INSTALL: [&str; 5] = ["system", "install", "--disk", TARGET_SERIAL, "--erase"];

/// A host on its way from a CD to a disk that forgets what it was not told to keep.
struct Lab {
    folder: tempfile::TempDir,
    disk: VolatileDisk,
    random: Random,
}

impl Lab {
    fn new(seed: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = media::blank_disk(folder.path(), "target.raw", SIZE)?;
        Ok(Self {
            disk: VolatileDisk::serve(&file)?,
            folder,
            random: Random::new(seed),
        })
    }

    /// Boots from the CD, with the disk.
    fn live(&self) -> Result<Host> {
        let live = Builder::new().medium(Medium::Cd);
        Host::boot(live.volatile_target_disk(&self.disk, Bus::Virtio))
    }

    fn installed(&self) -> Builder {
        let installed = Builder::new().medium(Medium::Disk);
        installed.volatile_target_disk(&self.disk, Bus::Virtio)
    }

    /// Boots from the disk.
    fn on_its_own(&self) -> Result<Host> {
        Host::boot_with_password(&self.installed(), Some(PASSWORD))
    }

    /// Has a command carried out, and cuts the power in the middle. Says whether the command had ended well by then.
    fn cut_during(&mut self, host: Host, command: &[&str], longest: u64) -> Result<bool> {
        let moment = Duration::from_millis(self.random.below(longest));
        let mut command = host.cli.spawn(command)?;
        thread::park_timeout(moment);
        let ended = command.try_wait()?;
        drop(host);
        let _ = command.kill();
        command.wait()?;
        eprintln!("cut after {moment:?}, ended: {ended:?}");
        self.lose_cache()?;
        Ok(ended.is_some_and(|status| status.success()))
    }

    /// Half of what the disk was not told to keep is gone.
    fn lose_cache(&mut self) -> Result<()> {
        let random = &mut self.random;
        let lost = self.disk.cut(|| random.below(2) == 0)?;
        eprintln!("{lost} sectors lost");
        Ok(())
    }
}

/// The guests that there are.
fn guests(host: &Host) -> Result<Vec<String>> {
    let list = host.cli.json(&["vm", "list"])?;
    let list = list.as_array().context("a list")?;
    let name = |vm: &Value| vm["name"].as_str().unwrap_or_default().to_owned();
    Ok(list.iter().map(name).collect())
}

fn create_guest(host: &Host, name: &str) -> Result<()> {
    let create = ["vm", "create", name, "--firmware", "bios"];
    host.cli.ok(&create).map(drop)
}

/// Cut in the middle, the installation is whole or has not been: no half of it is taken for one. In the end it is whole.
fn an_installation(lab: &mut Lab) -> Result<()> {
    let host = lab.live()?;
    create_guest(&host, "before")?;
    let done = lab.cut_during(host, &INSTALL, INSTALLATION)?;
    // The CD is still in.
    let host = lab.live()?;
    let system = host.cli.json(&["system", "show"])?;
    if system["storage"]["kind"] == "disk" {
        ensure!(guests(&host)? == ["before"]);
        return Ok(());
    }
    ensure!(!done, "what was acknowledged is gone: {system}");
    ensure!(guests(&host)?.is_empty());
    create_guest(&host, "before")?;
    // What is acknowledged then is there without an orderly end.
    host.cli.ok(&INSTALL)?;
    drop(host);
    lab.lose_cache()
}

/// Cut in the middle, the host comes up with either version, and with all that was acknowledged.
fn updates(lab: &mut Lab) -> Result<()> {
    let folder = lab.folder.path().to_owned();
    let key = folder.join("update.key");
    let update = sign(&folder, "good", &key, other_version(&iso()?)?)?;
    let web = Web::serve(&folder)?;
    let file = update.file_name().context("a file")?.to_string_lossy();
    let url = web.url(&file);
    let mut expected = vec!["before".to_owned()];
    let mut host = lab.on_its_own()?;
    ensure!(guests(&host)? == expected);
    let public = key.with_extension("pub").display().to_string();
    host.cli.ok(&["system", "update-key", "add", &public])?;
    for cut in 1..=UPDATES {
        let name = format!("update-{cut}");
        create_guest(&host, &name)?;
        expected.push(name);
        lab.cut_during(host, &["system", "update", &url, "--yes"], UPDATE)?;
        host = lab.on_its_own()?;
        ensure!(guests(&host)? == expected);
        is_decided(&host)?;
    }
    host.shut_down()
}

/// Waits until the host knows which version starts from now on: nothing is changed before.
fn is_decided(host: &Host) -> Result<()> {
    let images = host.cli.json(&["system", "images"])?;
    let mut all = images.as_array().into_iter().flatten();
    let runs = all.find(|image| image["running"] == true);
    if runs.context("an image that runs")?["state"] == "default" {
        return Ok(());
    }
    crate::update::is_kept(host)
}

/// The filesystem with the data has no damage.
fn is_clean(disk: &Path) -> Result<()> {
    let table = tool("sfdisk", ["--json".as_ref(), disk.as_os_str()])?;
    let table: Value = serde_json::from_str(&table)?;
    let parts = table["partitiontable"]["partitions"].as_array();
    let mut parts = parts.into_iter().flatten();
    let data = parts
        .find(|part| part["name"] == "lodge-data")
        .context("a partition with the data")?;
    let (start, size) = (data["start"].to_string(), data["size"].to_string());
    let copy = disk.with_extension("data");
    let arguments = [
        format!("if={}", disk.display()),
        format!("of={}", copy.display()),
        format!("skip={start}"),
        format!("count={size}"),
        "conv=sparse".to_owned(),
    ];
    tool("dd", arguments)?;
    tool("xfs_repair", ["-n".as_ref(), copy.as_os_str()])?;
    fs::remove_file(copy)?;
    Ok(())
}

#[test]
fn interrupted_installations_and_updates_do_no_harm() {
    let cuts = setting("LODGE_TEST_INSTALL_CUTS", INSTALLATIONS);
    let seed = setting("LODGE_TEST_SEED", SEED);
    eprintln!("{cuts} installations, {UPDATES} updates of each, seed {seed}");
    for cut in 1..=cuts {
        let mut lab = Lab::new(seed.wrapping_add(cut)).unwrap();
        an_installation(&mut lab).unwrap();
        updates(&mut lab).unwrap();
        is_clean(&lab.folder.path().join("target.raw")).unwrap();
    }
}
