//! A machine that cannot be built, with the field of the launch message at fault.

use std::io;

use lodge_vmm_proto::LaunchError;

use crate::boot::BootError;
use crate::kvm::KvmError;
use crate::memory::MemoryError;

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: LaunchError,
    /// What is wrong and what to do about it, for a person.
    pub message: String,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: LaunchError, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Names what could not be done, for `map_err`.
    pub fn doing<E: std::fmt::Display>(
        kind: LaunchError,
        what: impl std::fmt::Display,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self::new(kind, format!("{what}: {error}"))
    }
}

impl From<KvmError> for Failure {
    fn from(error: KvmError) -> Self {
        Self::new(LaunchError::Kvm, error.to_string())
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Self::new(LaunchError::Memory, error.to_string())
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(LaunchError::Internal, error.to_string())
    }
}
