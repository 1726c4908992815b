//! What PID 1 found at boot, as it leaves it for the manager.
//!
//! `lodge init` writes the report once, before it starts anything else, to [`BOOT_REPORT`]. It may hold the
//! administrator's password from the seed, so only root can read it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::MountFlags;
use crate::kvm::KvmStatus;
use crate::seed::Seed;
use crate::system::Firmware;

/// Where the report lies on the appliance.
pub const BOOT_REPORT: &str = "/run/lodge/boot.json";

/// Where data are mounted.
pub const DATA: &str = "/data";

/// Label of the filesystem for data.
pub const DATA_LABEL: &str = "lodge-data";

/// How data are mounted.
pub const DATA_FLAGS: MountFlags = MountFlags::MS_NOSUID
    .union(MountFlags::MS_NODEV)
    .union(MountFlags::MS_NOATIME);

/// What PID 1 found and did at boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootReport {
    /// The host's name, from the seed, from the data volume's last boot, or the default.
    pub hostname: String,
    /// The seed that was found, if any and if it was valid.
    #[serde(default)]
    pub seed: Option<SeedFound>,
    /// Where `/data` is.
    pub data: DataStorage,
    /// Whether guests can run, or why not.
    pub kvm: KvmStatus,
    /// What a person should know, in the order it happened.
    #[serde(default)]
    pub warnings: Vec<BootWarning>,
    /// Kernel modules loaded and refused.
    #[serde(default)]
    pub modules: ModuleReport,
    /// What the machine was booted from, as far as it can be known.
    #[serde(default)]
    pub boot_medium: Option<BootMedium>,
    /// BIOS or UEFI.
    pub firmware: Firmware,
    /// When each stage of the boot was over.
    #[serde(default)]
    pub stages: Vec<BootStage>,
}

/// A valid seed and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedFound {
    /// E.g. `/dev/sda1 (vfat, label LODGE-SEED)`.
    pub source: String,
    /// What it says.
    pub seed: Seed,
}

/// What `/data` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DataStorage {
    /// A filesystem labelled `lodge-data`.
    Disk {
        /// The block device, e.g. `/dev/nvme0n1p4`.
        device: String,
        /// `xfs` or `ext4`.
        filesystem: String,
    },
    /// Memory: everything is lost at power-off.
    Ram {
        /// Why, in one sentence.
        reason: String,
        /// The most that fits, in bytes.
        size: u64,
    },
}

/// Something a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootWarning {
    /// A stable word for programs.
    pub code: WarningCode,
    /// One sentence for people, with what to do about it.
    pub message: String,
}

/// The kinds of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// The seed could not be read or is not valid; it was not applied.
    SeedInvalid,
    /// More than one seed volume was found.
    SeedAmbiguous,
    /// Data is in memory only.
    DataInRam,
    /// A data filesystem exists but could not be mounted.
    DataDamaged,
    /// More than one data filesystem was found.
    DataAmbiguous,
    /// Guests cannot run.
    NoKvm,
    /// The clock was behind this program's own build date.
    ClockWrong,
    /// Kernel modules that should have loaded did not.
    ModuleFailed,
    /// Something else went wrong.
    Other,
}

/// Kernel modules at boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// How many were loaded.
    #[serde(default)]
    pub loaded: u32,
    /// Those that were refused.
    #[serde(default)]
    pub failed: Vec<ModuleFailure>,
}

/// A kernel module that did not load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleFailure {
    /// The module's name.
    pub name: String,
    /// The kernel's answer.
    pub reason: String,
}

/// What the machine was booted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMedium {
    /// The block device, e.g. `/dev/sr0`.
    pub device: String,
    /// The filesystem on it, e.g. `iso9660`.
    pub filesystem: String,
}

/// The end of a stage of the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStage {
    /// What was done.
    pub name: String,
    /// Milliseconds since the kernel started.
    pub done_at_ms: u64,
}

impl BootReport {
    /// Writes the report to `path`, whole or not at all, readable by root only.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let part = path.with_extension("part");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(&text)?;
        drop(file);
        fs::rename(&part, path)
    }

    /// Reads a report. A missing file is [`io::ErrorKind::NotFound`], a malformed one [`io::ErrorKind::InvalidData`].
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read(path)?;
        serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}
