//! The power is cut at moments that nobody has chosen, and what the disk had in its cache is lost with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lodge_tests::curl::Curl;
use lodge_tests::host::Host;
use lodge_tests::machine::{Builder, Medium};
use lodge_tests::media;
use lodge_tests::process::{sha256, tool};
use lodge_tests::terminal::GuestConsole;
use lodge_tests::volatile_disk::VolatileDisk;
use serde_json::{Value, json};

/// How often it is cut, unless `LODGE_TEST_CUTS` says otherwise.
const CUTS: u64 = 12;

/// What choices are made by, unless `LODGE_TEST_SEED` says otherwise.
const SEED: u64 = 20_261_130;

/// Objects of a kind at a time, beside those that are always there.
const MOST: usize = 3;

/// Bytes of an image.
const IMAGE: usize = 1 << 20;

/// What curl says of a file that it sends.
const BINARY: &str = "Content-Type: application/octet-stream";

/// The longest time between the first request and the cut, in milliseconds.
const LONGEST: u64 = 3000;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What an object may be like by what its client was told: each is what can be seen of it, `None` that it is not there. A request
/// that nobody has answered leaves two.
type Ledger = BTreeMap<String, Vec<Option<String>>>;

/// The kinds of objects that come and go.
const KINDS: [&str; 4] = ["vms", "images", "disks", "snapshots"];

/// A client that changes things for as long as it is answered.
struct Load<'a> {
    curl: &'a Curl,
    ledger: &'a mut Ledger,
    random: Random,
    folder: &'a Path,
    begun: Sender<()>,
}

impl Load<'_> {
    fn run(&mut self, stop: &AtomicBool, serial: &mut u64) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            *serial += 1;
            let kind = KINDS[self.random.below(4) as usize];
            let there = self.certain(kind);
            let oldest = there.first().cloned();
            match oldest {
                Some(path) if there.len() >= MOST || self.random.below(3) == 0 => {
                    self.delete(&path)?;
                }
                Some(path) if kind == "vms" && self.random.below(2) == 0 => {
                    self.describe(&path, *serial)?;
                }
                Some(path) if kind == "disks" && self.random.below(2) == 0 => {
                    self.apply(&path, *serial)?;
                }
                _ => self.create(kind, *serial)?,
            }
            let _ = self.begun.send(());
        }
        Ok(())
    }

    /// Objects that are there without doubt.
    fn certain(&self, kind: &str) -> Vec<String> {
        let prefix = format!("/v1/{kind}/x");
        let ours = self.ledger.range(prefix.clone()..);
        ours.take_while(|(path, _)| path.starts_with(&prefix))
            .filter(|(_, may)| matches!(may.as_slice(), [Some(_)]))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Notes what may come of a request, makes it, and notes that it has come, if that is said.
    fn request(
        &mut self,
        object: &str,
        becomes: Option<String>,
        status: u16,
        (method, path, options): (&str, &str, &[&str]),
    ) -> Result<()> {
        let may = self
            .ledger
            .entry(object.to_owned())
            .or_insert_with(|| vec![None]);
        may.push(becomes.clone());
        let answer = self.curl.request(method, path, options)?;
        match answer.status {
            0 => {}
            found if found == status => {
                self.ledger.insert(object.to_owned(), vec![becomes]);
            }
            // It goes down in the middle of its answer, or was asked for what it cannot do any more.
            _ => ensure!(answer.exit != Some(0), "{method} {path}: {answer:?}"),
        }
        Ok(())
    }

    fn delete(&mut self, path: &str) -> Result<()> {
        self.request(path, None, 204, ("DELETE", path, &[]))
    }

    fn describe(&mut self, path: &str, serial: u64) -> Result<()> {
        let text = format!("change {serial}");
        let body = json!({"description": text}).to_string();
        self.request(path, Some(text), 200, ("PATCH", path, &["-d", &body]))
    }

    /// Writes another content to a disk, all of it changes.
    fn apply(&mut self, path: &str, serial: u64) -> Result<()> {
        let (file, sum) = self.content(&format!("x{serial:06}"))?;
        let file = self.as_qcow2(&file)?;
        let url = format!("{path}:apply");
        let upload = ["-H", BINARY, "--data-binary", &file];
        self.request(path, Some(sum), 200, ("POST", &url, &upload))
    }

    fn create(&mut self, kind: &str, serial: u64) -> Result<()> {
        let name = format!("x{serial:06}");
        let object = format!("/v1/{kind}/{name}");
        match kind {
            "vms" => {
                let body = json!({"name": name, "description": "new", "boot": {"kernel": "linux"}});
                let body = body.to_string();
                let request = ("POST", "/v1/vms", &["-d", &body][..]);
                self.request(&object, Some("new".to_owned()), 201, request)
            }
            "images" => {
                let (mut file, sum) = self.content(&name)?;
                let mut format = "raw";
                if self.random.below(2) == 0 {
                    (file, format) = (self.as_qcow2(&file)?, "qcow2");
                }
                let path = format!("/v1/images?name={name}&kind=disk&format={format}");
                let options = ["-H", BINARY, "--data-binary", &file];
                self.request(&object, Some(sum), 201, ("POST", &path, &options))
            }
            "disks" => {
                let Some(image) = self.certain("images").pop() else {
                    return Ok(());
                };
                let Some([Some(sum)]) = self.ledger.get(&image).map(Vec::as_slice) else {
                    return Ok(());
                };
                let sum = sum.clone();
                let body = json!({"name": name, "image": image.trim_start_matches("/v1/images/")});
                let body = body.to_string();
                self.request(
                    &object,
                    Some(sum),
                    200,
                    ("POST", "/v1/disks?wait=60s", &["-d", &body]),
                )
            }
            _ => {
                let body = json!({"name": name, "memory": false}).to_string();
                let request = (
                    "POST",
                    "/v1/vms/holder:snapshot?wait=60s",
                    &["-d", &body][..],
                );
                self.request(&object, Some("holder".to_owned()), 200, request)
            }
        }
    }

    /// A file of random bytes, as an argument of curl, and its checksum.
    fn content(&mut self, name: &str) -> Result<(String, String)> {
        let file = self.folder.join("content");
        let words = std::iter::repeat_with(|| self.random.next().to_be_bytes());
        let mut bytes: Vec<u8> = words.take(IMAGE / 8).flatten().collect();
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        std::fs::write(&file, bytes)?;
        Ok((format!("@{}", file.display()), sha256(&file)?))
    }

    /// The same content in a file that is imported, as an argument of curl.
    fn as_qcow2(&self, raw: &str) -> Result<String> {
        let image = self.folder.join("image").display().to_string();
        let raw = raw.trim_start_matches('@');
        let convert = ["convert", "-f", "raw", "-O", "qcow2", raw, &image];
        tool("qemu-img", convert)?;
        Ok(format!("@{image}"))
    }
}

/// What can be seen of every object that comes and goes.
fn seen(host: &Host, curl: &Curl) -> Result<BTreeMap<String, String>> {
    let mut seen = BTreeMap::new();
    for kind in KINDS {
        let noun = kind.trim_end_matches('s');
        let list = host.cli.json(&[noun, "list"])?;
        for object in list.as_array().context("a list")? {
            let name = object["name"].as_str().context("a name")?;
            if !name.starts_with('x') {
                continue;
            }
            let path = format!("/v1/{kind}/{name}");
            let look = match kind {
                "vms" => text(&object["description"]),
                "images" => {
                    let sum = content(host, curl, &path)?;
                    // That of what was made into a raw disk is of what was sent.
                    ensure!(
                        object["sha256"] == *sum || object["origin"].is_object(),
                        "{path} has become {sum}: {object}"
                    );
                    sum
                }
                "disks" => content(host, curl, &path)?,
                _ => text(&object["vm"]),
            };
            seen.insert(path, look);
        }
    }
    Ok(seen)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Checksum of an image's or a disk's content.
fn content(host: &Host, curl: &Curl, path: &str) -> Result<String> {
    let file = host.machine.directory().join("downloaded");
    let output = file.to_string_lossy();
    let answer = curl.request("GET", &format!("{path}/content"), &["-o", &output])?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    sha256(&file)
}

/// Everything is as its client was told, or as it was being made; and then that is certain.
fn judge(ledger: &mut Ledger, seen: &BTreeMap<String, String>) -> Result<()> {
    for path in seen.keys() {
        ensure!(ledger.contains_key(path), "nobody has made {path}");
    }
    for (path, may) in ledger.iter_mut() {
        let is = seen.get(path).cloned();
        ensure!(may.contains(&is), "{path} is {is:?}, and could be {may:?}");
        *may = vec![is];
    }
    ledger.retain(|_, may| *may != [None]);
    Ok(())
}

/// There is a file for every object, and no other.
fn no_file_too_many(host: &Host, seen: &BTreeMap<String, String>) -> Result<()> {
    // The kernel and the initrd; the disks of the two guests.
    for (folder, kind, always) in [("images", "images", 2), ("disks", "disks", 2)] {
        let count = host
            .machine
            .sh(&format!("ls -A /data/lodge/{folder} | wc -l"))?;
        let prefix = format!("/v1/{kind}/");
        let wanted = always + seen.keys().filter(|path| path.starts_with(&prefix)).count();
        if count.trim() != wanted.to_string() {
            let listing = host.machine.sh(&format!("ls -lA /data/lodge/{folder}"))?;
            anyhow::bail!("{wanted} files should be in {folder}: {listing}");
        }
    }
    Ok(())
}

/// A stopped guest of which snapshots are taken, and one that has written to its disk, and checks that when it starts again.
fn furnish(host: &Host) -> Result<()> {
    host.upload_unpacked_guest()?;
    for disk in ["held", "written"] {
        host.cli.ok(&["disk", "create", disk, "--size", "16MiB"])?;
    }
    host.create_guest("holder", "poweroff", &["--disk", "held"])?;
    let options = ["--memory", "160MiB", "--disk", "written"];
    host.create_guest("writer", "disk-cycle:/dev/vda:1:one,sleep:100000", &options)?;
    host.cli.ok(&["vm", "start", "writer"])?;
    let console = GuestConsole::open(&host.cli, "writer")?;
    console.wait("LODGE-DISK-WRITE device=/dev/vda mib=1 ")?;
    Ok(())
}

pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let (cuts, seed) = (
        setting("LODGE_TEST_CUTS", CUTS),
        setting("LODGE_TEST_SEED", SEED),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = media::data_disk(folder.path(), 4 << 30).unwrap();
    let disk = VolatileDisk::serve(&file).unwrap();
    let builder = || {
        let builder = Builder::new().medium(Medium::Shell).memory_mib(2048);
        builder.volatile_data_disk(&disk)
    };
    let mut random = Random(seed);
    let (mut ledger, mut serial) = (Ledger::new(), 0);
    let mut host = Host::boot(builder()).unwrap();
    furnish(&host).unwrap();
    let fingerprint = host.fingerprint.clone();
    for cut in 1..=cuts {
        if cut == cuts {
            let set = ["vm", "set", "writer", "--autostart"];
            host.cli.ok(&set).unwrap();
        }
        let curl = host.curl().unwrap();
        let stop = AtomicBool::new(false);
        let (begun, changes) = mpsc::channel();
        let mut load = Load {
            curl: &curl,
            ledger: &mut ledger,
            random: Random(random.next()),
            folder: folder.path(),
            begun,
        };
        let moment = Duration::from_millis(random.below(LONGEST));
        thread::scope(|scope| {
            let load = scope.spawn(|| load.run(&stop, &mut serial));
            changes.recv_timeout(Duration::from_secs(120)).unwrap();
            thread::park_timeout(moment);
            // The plug is pulled: QEMU is killed without a word to the host.
            drop(host);
            stop.store(true, Ordering::Relaxed);
            load.join().unwrap().unwrap();
        });
        let lost = disk.cut(|| random.below(2) == 0).unwrap();
        host = Host::boot(builder()).unwrap();
        assert_eq!(host.fingerprint, fingerprint, "the certificate changed");
        let seen = seen(&host, &host.curl().unwrap()).unwrap();
        eprintln!(
            "cut {cut} of {cuts}, seed {seed}: after {moment:?}, {lost} sectors lost, {} objects",
            seen.len()
        );
        judge(&mut ledger, &seen).unwrap();
        no_file_too_many(&host, &seen).unwrap();
    }
    // It has started by itself, and finds what it wrote before the first cut.
    host.wait_state("writer", "running").unwrap();
    let console = GuestConsole::open(&host.cli, "writer").unwrap();
    console
        .wait("LODGE-DISK-CHECK device=/dev/vda mib=1 seed=one ok")
        .unwrap();
    host.shut_down().unwrap();
    tool("xfs_repair", ["-n".as_ref(), file.as_os_str()]).unwrap();
}
