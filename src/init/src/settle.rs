//! Waiting for the disks: as long as there is progress, and not longer.
//!
//! Controllers find their disks in the background, USB ones after a second or more. There is no event "that was all",
//! so this waits until nothing has been announced for a while and nothing is known to be on its way.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::modules::{Loader, device_aliases};
use crate::uevent::UeventSocket;

/// Quiet for this long, with nothing on its way, is the end.
const QUIET: Duration = Duration::from_millis(150);
/// With a USB controller: a hub debounces a port for 100 ms, resets it for 50 ms and more, and then asks the device, which
/// may take its time.
const QUIET_USB: Duration = Duration::from_millis(900);
/// A disk on its way about which nothing new is heard for this long is given up.
const STALLED: Duration = Duration::from_secs(10);
/// A device that comes and goes without end does not hold up the boot for longer than this.
const MOST: Duration = Duration::from_secs(60);

/// How often to look at what is on its way.
const LOOK: Duration = Duration::from_millis(20);

/// Subsystems whose devices are disks or lead to them.
const NEARER_TO_A_DISK: [&str; 8] = [
    "block", "scsi", "usb", "pci", "nvme", "virtio", "mmc", "mmc_host",
];

/// Loads the modules `names` and those for every device there is or that appears meanwhile. Ends early when `enough` says
/// so, which is asked after every change.
pub(crate) fn devices(
    loader: &mut Loader,
    names: &[&str],
    uevents: Option<&UeventSocket>,
    mut enough: impl FnMut() -> bool,
) {
    loader.load(names, &device_aliases());
    let Some(uevents) = uevents else {
        return;
    };
    // Only now: loading is progress too, however long it took.
    let start = Instant::now();
    let mut last_change = start;
    while start.elapsed() < MOST {
        if take_events(loader, uevents) {
            last_change = Instant::now();
            if enough() {
                return;
            }
        }
        let quiet = last_change.elapsed();
        let wanted = if has_usb() { QUIET_USB } else { QUIET };
        if quiet >= wanted && !on_their_way() {
            return;
        }
        if quiet >= STALLED {
            break;
        }
        let wait = wanted.saturating_sub(quiet).max(LOOK);
        wait_for(uevents, wait);
    }
    tracing::warn!("some disks do not get ready; going on without them");
}

/// Handles the events that wait. Says whether one of them may have brought a disk nearer.
pub(crate) fn take_events(loader: &mut Loader, uevents: &UeventSocket) -> bool {
    let mut changed = false;
    let mut aliases = Vec::new();
    loop {
        match uevents.read() {
            Ok(Some(event)) => {
                if event.action == "add" {
                    aliases.extend(event.modalias);
                }
                // Modules, queues and classes of no consequence announce themselves too.
                changed |= NEARER_TO_A_DISK.contains(&event.subsystem.as_str());
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!("uevents were lost ({error}); looking at every device again");
                aliases.extend(device_aliases());
                changed = true;
                if error.raw_os_error() != Some(libc::ENOBUFS) {
                    break;
                }
            }
        }
    }
    loader.load(&[], &aliases);
    changed
}

fn wait_for(uevents: &UeventSocket, time: Duration) {
    let mut polled = [PollFd::new(uevents.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
    // Whatever it says, the caller looks again.
    let _ = poll(&mut polled, timeout);
}

fn entries(path: &str) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn has_usb() -> bool {
    entries("/sys/bus/usb/devices").next().is_some()
}

/// Whether a device is known to be a disk whose contents cannot be read yet.
fn on_their_way() -> bool {
    usb_storage_without_disk() || nvme_not_live()
}

/// A mass-storage interface (class 8) whose SCSI host has no disk yet. The driver lets a stick rest for a second before
/// it scans it. One that never gets a disk is given up by the time limit.
fn usb_storage_without_disk() -> bool {
    entries("/sys/bus/usb/devices").any(|interface| {
        text(&interface.join("bInterfaceClass")) == "08"
            && interface.join("driver").exists()
            && !has_block(&interface)
    })
}

/// interface/hostN/targetN:0:0/N:0:0:0/block/sdX
fn has_block(interface: &Path) -> bool {
    let inside = |path: &Path, prefix: &str| -> Vec<std::path::PathBuf> {
        let all = fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        all.filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(prefix))
        })
        .collect()
    };
    inside(interface, "host")
        .iter()
        .flat_map(|host| inside(host, "target"))
        .flat_map(|target| inside(&target, ""))
        .any(|unit| unit.join("block").exists())
}

fn nvme_not_live() -> bool {
    entries("/sys/class/nvme").any(|controller| {
        let state = text(&controller.join("state"));
        matches!(state.as_str(), "new" | "resetting" | "connecting")
    })
}
