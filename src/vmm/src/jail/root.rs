//! A root directory with nothing in it.

use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, pivot_root};

/// Any directory there is, to put the new root on before it becomes the root.
const STEPPING_STONES: &[&str] = &["/run", "/tmp", "/proc", "/sys"];

/// Makes an empty, read-only file system the root and leaves the old one behind.
/// The mount namespace must be the process's own.
///
/// # Errors
/// From `mount(2)` and its kin.
pub fn enter_empty_root() -> io::Result<()> {
    const NOTHING: Option<&Path> = None;
    mount(
        NOTHING,
        "/",
        NOTHING,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        NOTHING,
    )?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("size=4k,nr_inodes=1,mode=555");
    let stone = STEPPING_STONES
        .iter()
        .find(|stone| mount(Some("none"), **stone, Some("tmpfs"), flags, options).is_ok())
        .ok_or_else(|| io::Error::other("no directory to mount on"))?;
    chdir(*stone)?;
    // The initial RAM file system cannot be pivoted away from; there the old
    // root is covered, and out of reach without the right to change roots.
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH)?,
        Err(_) => {
            mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING)?;
            chroot(".")?;
        }
    }
    chdir("/")?;
    mount(
        NOTHING,
        "/",
        NOTHING,
        MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags,
        NOTHING,
    )?;
    Ok(())
}
