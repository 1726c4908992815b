//! Nobody in particular, with no rights.

use std::fs;
use std::io;
use std::path::Path;

use caps::CapSet;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Descriptors a monitor may have at a time: what it was given, and for each
/// queue a few of its own.
const MAX_DESCRIPTORS: u64 = 4096;

/// Shows the guest's name in lists of processes and threads (15 bytes of it).
pub fn set_process_name(guest: &str) {
    let name: String = format!("vmm:{guest}").replace('\0', "");
    if let Ok(name) = std::ffi::CString::new(name) {
        // Cosmetic: a process without a name is none the worse.
        let _ = prctl::set_name(&name);
    }
}

/// Lets threads share one heap: one for each would cost more memory than all they
/// keep in it. And a second one does not fit into the jail: when the C library gives
/// a part of that back for the first time, it opens a file of `/proc`, for which the
/// process would be ended. Must be called before there are threads.
#[allow(unsafe_code)]
pub fn limit_allocator() {
    const HEAPS: libc::c_int = 1;
    // SAFETY: sets a number in the allocator; no other thread runs.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}

/// When the host's memory ends, the guest goes and not its manager, whose protection from that is inherited.
///
/// # Errors
/// From the kernel. There is no `/proc` any more in an empty root.
pub fn drop_memory_protection() -> io::Result<()> {
    raise_to_zero(Path::new("/proc/self/oom_score_adj"))
}

/// A score above zero was chosen by somebody, and only root may lower it.
fn raise_to_zero(score: &Path) -> io::Result<()> {
    if fs::read_to_string(score)?.starts_with('-') {
        fs::write(score, "0")?;
    }
    Ok(())
}

/// Becomes another user and group, for good, in no other group.
///
/// # Errors
/// When the caller may not.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // Only root can have the bounding set cut down, and only before.
    caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// Gives up every capability and the chance to get one.
///
/// # Errors
/// From the kernel.
pub fn drop_all() -> io::Result<()> {
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Inheritable,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    prctl::set_no_new_privs()?;
    // Not even the same user's other processes may look inside.
    prctl::set_dumpable(false)?;
    Ok(())
}

/// No core dumps, a bounded number of descriptors.
///
/// # Errors
/// From `setrlimit(2)`.
pub fn limit_resources() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = MAX_DESCRIPTORS.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protection_is_given_up() {
        let score = tempfile::NamedTempFile::new().unwrap();
        for (before, after) in [("-500\n", "0"), ("0\n", "0\n"), ("300\n", "300\n")] {
            fs::write(&score, before).unwrap();
            raise_to_zero(score.path()).unwrap();
            assert_eq!(fs::read_to_string(&score).unwrap(), after);
        }
    }
}
