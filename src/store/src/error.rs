//! Why the store refused.

use std::io;

use crate::batch::Precondition;
use crate::record::RecordError;

/// Why the store refused. Nothing of the batch has happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A precondition does not hold.
    #[error("{table}/{key} was expected to be {expected}, but {}", found_text(*found))]
    Conflict {
        /// Table of the record.
        table: String,
        /// Its key.
        key: String,
        /// What the batch required.
        expected: Precondition,
        /// The record's revision, if it exists.
        found: Option<u64>,
    },
    /// A record cannot be stored or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The filesystem is full.
    #[error("no space left for the store")]
    NoSpace,
    /// Another process has the store open.
    #[error("another process has the store open")]
    Locked,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The files are damaged and could not be repaired.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The host failed to read or write.
    #[error("{what}: {message}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The host's answer.
        message: String,
    },
}

fn found_text(found: Option<u64>) -> String {
    found.map_or_else(
        || "does not exist".to_owned(),
        |revision| format!("has revision {revision}"),
    )
}

impl StoreError {
    pub(crate) fn io(what: &'static str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io {
                what,
                message: error.to_string(),
            },
        }
    }

    pub(crate) fn sled(what: &'static str, error: &sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::io(what, error),
            sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => {
                Self::Damaged(error.to_string())
            }
            other => Self::Io {
                what,
                message: other.to_string(),
            },
        }
    }
}
