//! Mounting, and what is mounted.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::from_errno;

/// Mount flags, as the kernel has them.
pub use nix::mount::MsFlags as MountFlags;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub target: PathBuf,
    /// The filesystem's type.
    pub filesystem: String,
    /// What, e.g. `/dev/sda1`.
    pub source: OsString,
    /// Whether writing is refused here.
    pub read_only: bool,
}

/// Room on a filesystem, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What is free, to root too.
    pub free: u64,
    /// What is free to everybody.
    pub available: u64,
}

/// Mounts `source` on `target`, which is made if it is missing. `options` are the filesystem's own, with commas.
pub fn mount(
    source: &str,
    target: &Path,
    filesystem: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let options = (!options.is_empty()).then_some(options);
    nix::mount::mount(Some(source), target, Some(filesystem), flags, options).map_err(from_errno)
}

/// Unmounts what is on `target`.
pub fn unmount(target: &Path) -> io::Result<()> {
    nix::mount::umount(target).map_err(from_errno)
}

/// Unmounts what is on `target` for whoever looks there from now on. It goes when nobody has a file there open any more.
pub fn detach(target: &Path) -> io::Result<()> {
    nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH).map_err(from_errno)
}

/// Everything that is mounted in this namespace, in the order it was mounted.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// Room on the filesystem that `path` is on.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(from_errno)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Ok(Space {
        total: bytes(stat.blocks()),
        free: bytes(stat.blocks_free()),
        available: bytes(stat.blocks_available()),
    })
}

/// proc(5): id parent major:minor root target options [tags…] - type source superoptions.
fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let has_ro = |options: &[u8]| options.split(|b| *b == b',').any(|o| o == b"ro");
    Some(Mount {
        target: PathBuf::from(unescape(fields.get(4)?)),
        read_only: has_ro(fields.get(5)?) || has_ro(fields.get(dash + 3)?),
        filesystem: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: unescape(fields.get(dash + 2)?),
    })
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let code = tail
            .get(..3)
            .and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) if *first == b'\\' => {
                bytes.push(code);
                rest = &tail[3..];
            }
            _ => bytes.push(*first),
        }
    }
    OsString::from_vec(bytes)
}

impl Mount {
    /// The source as a path, when it is one.
    pub fn device(&self) -> Option<&Path> {
        self.source
            .as_bytes()
            .starts_with(b"/")
            .then(|| Path::new(&self.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                     37 35 0:5 / /proc rw - proc proc ro\nshort line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].target, Path::new("/mnt 2"));
        assert_eq!(mounts[0].filesystem, "ext3");
        assert_eq!(mounts[0].device(), Some(Path::new("/dev/root")));
        assert!(!mounts[0].read_only);
        assert!(mounts[1].read_only);
        assert_eq!(mounts[1].device(), None);
    }

    #[test]
    fn this_machine() {
        assert!(mounts().unwrap().iter().any(|m| m.target == Path::new("/")));
        let space = space(Path::new("/")).unwrap();
        assert!(space.total >= space.free && space.free >= space.available);
    }
}
