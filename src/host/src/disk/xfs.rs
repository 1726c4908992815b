//! Making and growing XFS filesystems, by the tools that are in the image for that.

use std::io;
use std::path::Path;
use std::process::Command;

use uuid::Uuid;

/// Longest output of a tool that is repeated to people, in characters.
const SHOWN: usize = 400;

/// A tool that could not be run, or did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum XfsError {
    /// It could not be started.
    #[error("{tool}: {source}")]
    Start {
        /// Its name.
        tool: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{tool} failed: {output}")]
    Failed {
        /// Its name.
        tool: &'static str,
        /// What it said.
        output: String,
    },
}

/// Makes a filesystem with shared extents on `device`, whatever is on it. `id` becomes the filesystem's UUID; without, one is made up.
/// Labels have at most 12 bytes.
///
/// # Errors
/// [`XfsError`]; what is on the device then is undefined.
pub fn make_xfs(device: &Path, label: &str, id: Option<Uuid>) -> Result<(), XfsError> {
    let metadata = match id {
        Some(id) => format!("reflink=1,uuid={id}"),
        None => "reflink=1".to_owned(),
    };
    let mut command = tool("mkfs.xfs");
    command.args(["-q", "-f", "-m", &metadata, "-L", label]);
    run("mkfs.xfs", command.arg(device))
}

/// Has the filesystem that is mounted at `mounted` take all of its device.
///
/// # Errors
/// [`XfsError`]; the filesystem stays as it was then.
pub fn grow_xfs(mounted: &Path) -> Result<(), XfsError> {
    run("xfs_growfs", tool("xfs_growfs").arg("-d").arg(mounted))
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin");
    command
}

fn run(tool: &'static str, command: &mut Command) -> Result<(), XfsError> {
    let ran = command.output();
    let ran = ran.map_err(|source| XfsError::Start { tool, source })?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let output = said.trim().chars().take(SHOWN).collect();
    Err(XfsError::Failed { tool, output })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{FilesystemKind, probe};

    #[test]
    fn the_filesystem_has_the_label_and_the_id() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(512 << 20).unwrap();
        let id = Uuid::from_u128(0x0195_0000_0000_7000_8000_0000_0000_00ff);
        make_xfs(file.path(), "lodge-store", Some(id)).unwrap();
        let found = probe(file.path()).unwrap().expect("a filesystem");
        assert_eq!(found.kind, FilesystemKind::Xfs);
        assert_eq!(found.label, "lodge-store");
        assert_eq!(found.uuid, id.to_string());
    }

    #[test]
    fn what_a_tool_says_is_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let error = make_xfs(file.path(), "lodge-store", None).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("mkfs.xfs failed: "), "{text}");
        assert!(text.len() > "mkfs.xfs failed: ".len(), "{text}");
        let error = grow_xfs(Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, XfsError::Failed { .. }), "{error}");
    }
}
