//! Disks of guests whose requests the host fails.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Name;

/// What is done when the host cannot carry out what a guest asks of a disk. It takes effect at once, also while the guest runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDiskError {
    /// The guest is paused, and knows nothing of it. When the cause is gone, `POST /v1/vms/{vm}:resume` has it go on, and what failed is done
    /// again. Only a flush that fails for another reason than want of space is reported to the guest: what it was to save may be lost.
    #[default]
    Pause,
    /// The guest is told, and deals with it: most systems use the disk no more, or read-only.
    Report,
}

impl OnDiskError {
    /// Whether it is what disks have that nothing was said about.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a guest is paused that cannot go on with a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmDiskError {
    /// The disk.
    pub disk: Name,
    /// What is wrong.
    pub problem: DiskProblem,
    /// What is wrong, for a person.
    pub message: String,
}

/// What can be wrong below a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskProblem {
    /// The datastore is full, and the disk wanted to grow.
    NoSpace,
    /// The datastore, or what is below it, failed.
    IoError,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::VmDisk;

    #[test]
    fn a_disk_pauses_its_guest_unless_told_otherwise() {
        let disk: VmDisk = serde_json::from_str(r#"{"disk": "data"}"#).unwrap();
        assert_eq!(disk.on_error, OnDiskError::Pause);
        let json = serde_json::to_value(disk).unwrap();
        assert!(json.get("on_error").is_none(), "{json}");
        let text = r#"{"disk": "data", "on_error": "report"}"#;
        let disk: VmDisk = serde_json::from_str(text).unwrap();
        assert_eq!(disk.on_error, OnDiskError::Report);
        assert_eq!(serde_json::to_value(disk).unwrap()["on_error"], "report");
    }
}
