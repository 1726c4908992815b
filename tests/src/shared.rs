//! Hosts that tests use one after the other: a boot takes an emulated machine longer than most of them take.

use std::io;
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::artifacts;
use crate::host::Host;
use crate::machine::{Builder, Medium};

/// Those that nobody uses now.
static IDLE: Mutex<Vec<Host>> = Mutex::new(Vec::new());

/// What a test may leave behind, in the order in which it can be deleted, and what is said so that nobody is asked.
const LEFT: [(&str, &[&str]); 5] = [
    ("vm", &["--yes"]),
    ("snapshot", &["--yes"]),
    ("disk", &["--yes"]),
    ("network", &[]),
    ("image", &[]),
];

/// What a shared host has.
const KEPT: [&str; 3] = ["default", "linux", "small"];

/// A host for the time of a test, with a shell, a data disk, the images of [`Host::upload_unpacked_guest`], and a network to boot
/// from. Nothing of the tests before is left on it; one whose test failed is not used again.
pub struct Shared(Option<Host>);

impl Shared {
    /// One that is idle, or a new one.
    ///
    /// # Errors
    /// When a new one does not become ready.
    pub fn take() -> Result<Self> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let host = match idle {
            Some(host) => host,
            None => boot()?,
        };
        Ok(Self(Some(host)))
    }
}

impl Deref for Shared {
    type Target = Host;

    fn deref(&self) -> &Host {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(host) = self.0.take().filter(|_| !thread::panicking()) else {
            return;
        };
        match tidy(&host) {
            Ok(()) => IDLE
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(host),
            Err(problem) => eprintln!("this host is not used again: {problem:#}"),
        }
    }
}

/// A machine ends with the thread that started it: this one's stays until the process ends.
fn boot() -> Result<Host> {
    let (sender, booted) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(prepared());
        loop {
            thread::park();
        }
    });
    booted.recv().context("the host's thread has ended")?
}

fn prepared() -> Result<Host> {
    let builder = Builder::new()
        .medium(Medium::Shell)
        .memory_mib(4096)
        .data_disk(6 << 30)
        .network_boot(artifacts::network_script(), "boot.ipxe");
    let host = Host::boot(builder)?;
    host.upload_unpacked_guest()?;
    remove_at_end(host.machine.directory())?;
    Ok(host)
}

/// Nobody is told when the process ends, but whoever reads from it.
fn remove_at_end(folder: &Path) -> io::Result<()> {
    let mut command = Command::new("sh");
    let mut remover = command
        .args(["-c", "cat; rm -rf -- \"$0\""])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not what Ctrl-C ends.
        .process_group(0)
        .spawn()?;
    // Closed by the kernel.
    std::mem::forget(remover.stdin.take());
    Ok(())
}

/// Deletes everything but what a shared host has.
fn tidy(host: &Host) -> Result<()> {
    let running = |object: &Value| object["status"].get("pid").is_some();
    each(host, &["vm", "kill"], &[], running)?;
    for (noun, options) in LEFT {
        each(host, &[noun, "delete"], options, |_| true)?;
    }
    Ok(())
}

/// Does something with every object of a kind that is wanted and not what a shared host has.
fn each(
    host: &Host,
    command: &[&str; 2],
    options: &[&str],
    wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    let list = host.cli.json(&[command[0], "list"])?;
    let objects = list.as_array().context("a list")?.iter();
    let names: Vec<&str> = objects
        .filter(|object| wanted(object))
        .filter_map(|object| object["name"].as_str())
        .filter(|name| !KEPT.contains(name))
        .collect();
    if !names.is_empty() {
        host.cli.ok(&[command, &names[..], options].concat())?;
    }
    Ok(())
}
