//! Everything that can go wrong between a person and a host.

use lodge_api::Problem;

use crate::Fingerprint;

/// A failed request, in words for a person.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host answered with a problem.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The host shows another certificate than the pinned one.
    #[error(
        "the certificate of {host} is not the one this remote was added with\n  \
         expected {expected}\n  found    {found}\n\
         If the host was reinstalled, compare the found one with the host's console and add the remote again; \
         otherwise somebody is listening in between."
    )]
    WrongCertificate {
        /// Address of the host.
        host: String,
        /// What was pinned.
        expected: Fingerprint,
        /// What was shown.
        found: Fingerprint,
    },
    /// No connection.
    #[error("cannot reach {host}: {problem}")]
    Connect {
        /// Address of the host.
        host: String,
        /// Why.
        problem: String,
    },
    /// The connection broke, or the answer is not one of a Lodge host.
    #[error("{host} did not answer as a Lodge host does: {problem}")]
    Protocol {
        /// Address of the host.
        host: String,
        /// What was odd.
        problem: String,
    },
    /// The person asked for something impossible.
    #[error("{0}")]
    Usage(String),
    /// A local file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ClientError {
    /// The host's problem, where the host answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the host may answer better in a moment.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Protocol { .. })
    }
}

impl From<Problem> for ClientError {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}
