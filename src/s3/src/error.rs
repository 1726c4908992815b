//! What an S3 service can refuse.

use lodge_client::FetchError;

/// Why something cannot be done with a bucket.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The service is not there, does not show a certificate that is trusted, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// The service refuses.
    #[error("{}", refused(*.status, .code, .message))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its word for the reason, such as `NoSuchBucket`; empty where it gives none.
        code: String,
        /// The same for people, in its words.
        message: String,
    },
    /// It does not answer as an S3 service does.
    #[error("the answer is not one of an S3 service: {0}")]
    Protocol(String),
    /// What was to be uploaded could not be made.
    #[error("{0}")]
    Content(std::io::Error),
}

impl S3Error {
    /// The service's word for its refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether there is no such object.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => {
                *status == 404 && matches!(code.as_str(), "NoSuchKey" | "")
            }
            _ => false,
        }
    }

    /// Whether it may be well in a moment.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, code, .. } => {
                *status >= 500 || *status == 429 || code == "RequestTimeout"
            }
            Self::Protocol(_) | Self::Content(_) => false,
        }
    }
}

impl From<FetchError> for S3Error {
    fn from(error: FetchError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

fn refused(status: u16, code: &str, message: &str) -> String {
    match (code, message) {
        ("", _) => format!("the service answered {status}"),
        (code, "") => format!("the service refused: {code}"),
        (code, message) => format!("the service refused: {message} ({code})"),
    }
}
