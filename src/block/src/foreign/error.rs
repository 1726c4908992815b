//! What is wrong with a foreign image.

use std::io;

use crate::format::Format;

/// An image that cannot be read. The text says what it is, [`ImageError::remedy`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its own tables contradict each other or the file.
    #[error("the file is {format}, but damaged: {problem}")]
    Damaged {
        /// What it is.
        format: Format,
        /// What is wrong.
        problem: String,
    },
    /// It goes on beyond the end of the file.
    #[error(
        "the file is {format}, but cut short: it has {size} bytes, and refers to byte {offset}"
    )]
    CutShort {
        /// What it is.
        format: Format,
        /// Length of the file.
        size: u64,
        /// The first byte that is missed.
        offset: u64,
    },
    /// It is right, and more than is understood here.
    #[error("the file is {format} {problem}")]
    Refused {
        /// What it is.
        format: Format,
        /// What it has or needs, to go on after the format: "with a backing file".
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The host refused.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// What a person can do about it; empty where nobody knows.
    pub fn remedy(&self) -> &str {
        match self {
            Self::Damaged { .. } => {
                "copy the file again; `qemu-img check` says more of an image that was damaged before"
            }
            Self::CutShort { .. } => "copy or download the file again",
            Self::Refused { remedy, .. } => remedy,
            Self::Host { .. } => "",
        }
    }

    pub(super) fn damaged(format: Format, problem: impl Into<String>) -> Self {
        Self::Damaged {
            format,
            problem: problem.into(),
        }
    }

    pub(super) fn refused(
        format: Format,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Refused {
            format,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// A name out of an image, fit for a message: short, and without what a terminal would obey.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 100;
    String::from_utf8_lossy(bytes)
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
