//! Saved device state: the schema every device's `save` and `restore` share.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The state of one device at a moment when its guest is paused.
///
/// `body` is the device's own structure. Fields are only ever added, each with
/// a default, so that any release reads what any earlier one wrote; a change
/// that cannot be expressed so raises `version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceState {
    /// What kind of device, e.g. `uart-16550a`.
    pub kind: String,
    /// Version of `body`, from 1.
    pub version: u32,
    /// The device's registers.
    pub body: serde_json::Value,
}

/// A saved state that a device refuses. The device is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state is another device's.
    #[error("expected the state of {expected}, found that of {found}")]
    Kind {
        /// This device.
        expected: &'static str,
        /// What the state says.
        found: String,
    },
    /// The state was written by a later release.
    #[error("{kind} state version {found} is newer than {known}, the newest known here")]
    Version {
        /// This device.
        kind: &'static str,
        /// What the state says.
        found: u32,
        /// Newest version understood.
        known: u32,
    },
    /// A field is missing, malformed or out of its range.
    #[error("{kind} state: {problem}")]
    Invalid {
        /// This device.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl DeviceState {
    /// Wraps a device's structure.
    pub fn new(kind: &'static str, version: u32, body: &impl Serialize) -> Self {
        let body = serde_json::to_value(body)
            .expect("device state is plain data: structures, integers, byte arrays");
        Self {
            kind: kind.to_owned(),
            version,
            body,
        }
    }

    /// Unwraps it again.
    ///
    /// # Errors
    /// When the state is of another kind, of a later version than `known`, or malformed.
    pub fn decode<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        known: u32,
    ) -> Result<T, RestoreError> {
        if self.kind != kind {
            return Err(RestoreError::Kind {
                expected: kind,
                found: self.kind.clone(),
            });
        }
        if self.version > known {
            return Err(RestoreError::Version {
                kind,
                found: self.version,
                known,
            });
        }
        T::deserialize(&self.body).map_err(|error| RestoreError::Invalid {
            kind,
            problem: error.to_string(),
        })
    }
}
