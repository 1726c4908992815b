//! Disks and sticks for the machine.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::tool;

/// An empty, sparse disk.
///
/// # Errors
/// When it cannot be written.
pub fn blank_disk(directory: &Path, name: &str, size: u64) -> Result<PathBuf> {
    let path = directory.join(name);
    File::create(&path)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("creating {}", path.display()))?;
    Ok(path)
}

/// A disk with an XFS filesystem (reflinks) labelled `lodge-data`.
///
/// # Errors
/// When `mkfs.xfs` fails.
pub fn data_disk(directory: &Path, size: u64) -> Result<PathBuf> {
    let path = blank_disk(directory, "data.raw", size)?;
    tool(
        "mkfs.xfs",
        [
            "-q",
            "-L",
            "lodge-data",
            "-m",
            "reflink=1",
            &path.to_string_lossy(),
        ],
    )?;
    Ok(path)
}

/// A stick labelled `LODGE-SEED` with that `seed.toml`.
///
/// # Errors
/// When the tools fail.
pub fn seed_stick(directory: &Path, seed: &str) -> Result<PathBuf> {
    let path = blank_disk(directory, "seed.img", 4 << 20)?;
    let text = directory.join("seed.toml");
    std::fs::write(&text, seed)?;
    tool("mkfs.vfat", ["-n", "LODGE-SEED", &path.to_string_lossy()])?;
    tool(
        "mcopy",
        [
            "-i",
            &path.to_string_lossy(),
            &text.to_string_lossy(),
            "::/seed.toml",
        ],
    )?;
    Ok(path)
}
