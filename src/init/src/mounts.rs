//! The filesystems every Linux system has, made before anything else.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use lodge_host::disk::{MountFlags, mount, mounts};

/// Source, target, type, flags, options.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    MountFlags,
    &'static str,
);

const SAFE: MountFlags = MountFlags::MS_NOSUID
    .union(MountFlags::MS_NODEV)
    .union(MountFlags::MS_NOEXEC);
const TEMPORARY: MountFlags = MountFlags::MS_NOSUID.union(MountFlags::MS_NODEV);

/// Without these nothing works.
const FIRST: [Row; 3] = [
    ("proc", "/proc", "proc", SAFE, ""),
    ("sysfs", "/sys", "sysfs", SAFE, ""),
    (
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MountFlags::MS_NOSUID.union(MountFlags::MS_NOEXEC),
        "mode=0755",
    ),
];

/// The rest; each may be missing from a kernel.
const SECOND: [Row; 6] = [
    (
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::MS_NOSUID.union(MountFlags::MS_NOEXEC),
        "gid=5,mode=0620,ptmxmode=0666",
    ),
    ("tmpfs", "/dev/shm", "tmpfs", SAFE, "mode=1777"),
    ("tmpfs", "/run", "tmpfs", TEMPORARY, "mode=0755,size=25%"),
    ("tmpfs", "/tmp", "tmpfs", TEMPORARY, "mode=1777,size=25%"),
    // Moving a process between groups takes a lock that stalls every fork for milliseconds; with favordynmods it does
    // not, and each start of a guest moves processes.
    (
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        SAFE,
        "nsdelegate,favordynmods",
    ),
    ("securityfs", "/sys/kernel/security", "securityfs", SAFE, ""),
];

/// Links that programs expect in `/dev`.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts what the log needs. The kernel may have mounted `/dev` itself.
pub(crate) fn first() -> Vec<String> {
    FIRST.iter().filter_map(row).collect()
}

/// Mounts the rest, makes links and folders. Says what did not work.
pub(crate) fn second() -> Vec<String> {
    let mut problems: Vec<String> = SECOND.iter().filter_map(row).collect();
    for (target, link) in LINKS {
        match symlink(target, link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                problems.push(format!("{link}: {e}"));
            }
            _ => {}
        }
    }
    // Only root may look into it: it holds sockets and tokens.
    if let Err(e) = private_dir(Path::new("/run/lodge")) {
        problems.push(format!("/run/lodge: {e}"));
    }
    problems
}

/// UEFI variables. Their filesystem may be a module, so this comes after the modules.
pub(crate) fn efi_variables() {
    const ROW: Row = (
        "efivarfs",
        "/sys/firmware/efi/efivars",
        "efivarfs",
        SAFE,
        "",
    );
    if Path::new("/sys/firmware/efi").exists()
        && let Some(problem) = row(&ROW)
    {
        tracing::warn!("UEFI variables are not available: {problem}");
    }
}

/// Mounts one row unless something of its type is there already. Says what went wrong.
fn row((source, target, filesystem, flags, options): &Row) -> Option<String> {
    let target = Path::new(target);
    let there = mounts().unwrap_or_default();
    if there
        .iter()
        .any(|m| m.target == target && m.filesystem == *filesystem)
    {
        return None;
    }
    let mut result = mount(source, target, filesystem, *flags, options);
    if result.is_err() && *filesystem == "cgroup2" {
        // Kernels before 6.0 do not know favordynmods.
        result = mount(source, target, filesystem, *flags, "nsdelegate");
    }
    result.err().map(|e| format!("{}: {e}", target.display()))
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}
