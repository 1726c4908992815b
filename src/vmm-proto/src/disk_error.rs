//! Disks whose requests the host fails.

use serde::{Deserialize, Serialize};

/// What is done with requests that the host fails.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDiskError {
    /// They are held back and the guest is paused; when it is resumed, they are done again. A flush is reported all the same, unless
    /// there was no space: after another failure, what it was to save may be lost.
    #[default]
    Pause,
    /// The guest is told.
    Report,
}

/// A disk holds back requests, and the guest is paused for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStuck {
    /// The disk's serial number.
    pub serial: String,
    /// What is wrong, for programs.
    pub problem: DiskProblem,
    /// What is wrong, for a person.
    pub message: String,
}

/// What can be wrong below a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskProblem {
    /// There is no space where its file grows.
    NoSpace,
    /// Anything else.
    IoError,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::GuestEvent;

    #[test]
    fn a_stuck_disk_has_the_documented_form() {
        let event = GuestEvent::DiskStuck(DiskStuck {
            serial: "0123".to_owned(),
            problem: DiskProblem::NoSpace,
            message: "full".to_owned(),
        });
        let text = json!({"type": "disk_stuck", "serial": "0123", "problem": "no_space", "message": "full"});
        assert_eq!(serde_json::to_value(&event).unwrap(), text);
        assert_eq!(serde_json::from_value::<GuestEvent>(text).unwrap(), event);
    }
}
