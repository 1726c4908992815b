//! The end: processes, filesystems, power.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use lodge_host::disk::{Mount, MountFlags, mounts};
use lodge_host::power::PowerAction;
use nix::errno::Errno;
use nix::mount::{MntFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::random;

/// Sends a signal to every process but this one.
pub(crate) fn signal_all(signal: Signal) {
    match kill(Pid::from_raw(-1), signal) {
        // Nobody is there.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!("{signal} to every process: {error}"),
    }
}

/// Whether any process besides PID 1 and the kernel's own threads is alive.
pub(crate) fn processes_left() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid > 1)
        .any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_live_program(&stat))
        })
}

/// proc(5): `pid (name) state ppid …`. The name may hold anything, so it is skipped from the right.
fn is_live_program(stat: &str) -> bool {
    let Some((head, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    let (state, parent) = (fields.next(), fields.next());
    // Process 2 is the parent of the kernel's threads.
    let kernel = parent == Some("2") || head.starts_with("2 (");
    !kernel && !matches!(state, Some("Z" | "X"))
}

/// Saves what must be saved, unmounts, and switches off or restarts. Returns only when the kernel refuses.
pub(crate) fn finish(action: PowerAction) -> nix::Result<Infallible> {
    random::save();
    nix::unistd::sync();
    unmount_all();
    tracing::info!("{} now", action.verb());
    nix::unistd::sync();
    reboot(match action {
        PowerAction::Off => RebootMode::RB_POWER_OFF,
        PowerAction::Reboot => RebootMode::RB_AUTOBOOT,
    })
}

/// Unmounts every filesystem with data in it, the newest first; what cannot be unmounted is made read-only, which also
/// leaves it clean.
fn unmount_all() {
    let mounts = mounts().unwrap_or_default();
    for entry in mounts.iter().rev().filter(|entry| holds_data(entry)) {
        let target = &entry.target;
        let Err(error) = umount2(target, MntFlags::empty()) else {
            tracing::info!("{} unmounted", target.display());
            continue;
        };
        let flags = MountFlags::MS_REMOUNT | MountFlags::MS_RDONLY;
        match mount(None::<&str>, target, None::<&str>, flags, None::<&str>) {
            Ok(()) => tracing::warn!("{} is busy ({error}); made read-only", target.display()),
            Err(read_only) => tracing::error!(
                "{} cannot be unmounted ({error}) nor made read-only ({read_only})",
                target.display()
            ),
        }
    }
}

/// On a block device, or from another machine.
fn holds_data(entry: &Mount) -> bool {
    let network = entry.filesystem.starts_with("nfs") || entry.filesystem == "cifs";
    let on_disk = entry
        .device()
        .is_some_and(|device| device.starts_with("/dev"));
    (on_disk || network) && entry.target != Path::new("/") && entry.filesystem != "devtmpfs"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_threads_and_zombies() {
        assert!(is_live_program("77 (lodge vmm) S 1 77 77 0 -1"));
        assert!(is_live_program("77 (odd) Z 2 (x) R 1 77 77 0 -1"));
        assert!(!is_live_program("77 (lodge) Z 1 77 77 0 -1"));
        assert!(!is_live_program("15 (kworker/0:1) I 2 0 0 0 -1"));
        assert!(!is_live_program("2 (kthreadd) S 0 0 0 0 -1"));
        assert!(!is_live_program(""));
        assert!(processes_left());
    }

    #[test]
    fn what_is_unmounted() {
        let entry = |source: &str, filesystem: &str, target: &str| Mount {
            target: target.into(),
            filesystem: filesystem.to_owned(),
            source: source.into(),
            read_only: false,
        };
        assert!(holds_data(&entry("/dev/sda4", "xfs", "/data")));
        assert!(holds_data(&entry("10.0.0.1:/export", "nfs4", "/data/nfs")));
        assert!(!holds_data(&entry("tmpfs", "tmpfs", "/data")));
        assert!(!holds_data(&entry("rootfs", "rootfs", "/")));
        assert!(!holds_data(&entry("devtmpfs", "devtmpfs", "/dev")));
    }
}
