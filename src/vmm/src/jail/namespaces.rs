//! Namespaces of its own, each empty.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Leaves all namespaces of the host. The next child will be process 1 of its own.
///
/// Without root a user namespace comes first, in which everybody may.
///
/// # Errors
/// From `unshare(2)`, or from the files that map the user.
pub fn unshare_all() -> io::Result<()> {
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        return Ok(unshare(rest)?);
    }
    unshare(CloneFlags::CLONE_NEWUSER | rest)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
