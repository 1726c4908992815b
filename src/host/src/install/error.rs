//! What can go wrong with an installation.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::XfsError;

/// An installation that did not happen, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is nothing to install from.
    #[error("no boot medium of Lodge is plugged in")]
    NoMedium,
    /// The host does not run from a disk of its own; why.
    #[error("{0}")]
    NotInstalled(String),
    /// An image is not what it should be.
    #[error("the image on {device} is damaged: {problem}")]
    Damaged {
        /// Where it is.
        device: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The disk cannot be taken.
    #[error("{disk} cannot be used: {problem}")]
    Unusable {
        /// The disk.
        disk: String,
        /// Why.
        problem: String,
    },
    /// Somebody said stop. The disk does not start.
    #[error("cancelled")]
    Cancelled,
    /// The filesystem for the data could not be made.
    #[error(transparent)]
    Xfs(#[from] XfsError),
    /// The host refused something.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

impl InstallError {
    /// For `map_err`: the host refused `what`.
    pub(super) fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Host { what, source }
    }

    /// For `map_err`: the host refused something with the file at `path`.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::doing(path.display().to_string())
    }
}
