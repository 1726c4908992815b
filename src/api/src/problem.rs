//! Errors: `application/problem+json` (RFC 9457) with a stable code.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, for a program (`code`, `pointer`) and for a person (`detail`, `hint`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable, machine-readable kind.
    pub code: ErrorCode,
    /// HTTP status.
    pub status: u16,
    /// Short text, the same for every problem of this kind.
    pub title: String,
    /// What happened this time.
    pub detail: String,
    /// JSON pointer (RFC 6901) to the offending field of the request body,
    /// or `?name` for a query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Path of the operation that failed, where a request waited for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub operation: Option<Box<str>>,
    /// Seconds after which another try makes sense; also sent as `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub retry_after_s: Option<NonZeroU32>,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $title:literal;)*) => {
        /// Kinds of problems.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// The HTTP status this kind travels with.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// A short text for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

error_codes! {
    /// The request is not what the API expects: syntax, unknown field, value out of range.
    InvalidRequest = 400, "Invalid request";
    /// The content of an upload is not what it was declared to be.
    InvalidContent = 400, "Invalid content";
    /// The content does not match the checksum that was declared.
    ChecksumMismatch = 400, "Checksum mismatch";
    /// No or wrong credentials.
    Unauthorized = 401, "Not logged in";
    /// The credentials do not carry the privilege that the method needs.
    Forbidden = 403, "Not allowed";
    /// No such object or path.
    NotFound = 404, "Not found";
    /// The path exists, the method does not.
    MethodNotAllowed = 405, "Method not allowed";
    /// The client did not send its request in time.
    RequestTimeout = 408, "Request timeout";
    /// An object of that name exists.
    AlreadyExists = 409, "Already exists";
    /// Not possible in the object's present state.
    WrongState = 409, "Wrong state";
    /// Something else uses the object.
    InUse = 409, "In use";
    /// Nobody in the guest listens there.
    ConnectionRefused = 409, "Connection refused";
    /// `If-Match` names another revision.
    PreconditionFailed = 412, "Changed meanwhile";
    /// The body is larger than the method takes.
    PayloadTooLarge = 413, "Body too large";
    /// The body has a media type that the method does not take.
    UnsupportedMediaType = 415, "Unsupported media type";
    /// Too many requests, or too many wrong passwords.
    TooManyRequests = 429, "Too many requests";
    /// The operation was cancelled.
    Cancelled = 499, "Cancelled";
    /// Lodge failed.
    Internal = 500, "Internal error";
    /// A target of NVMe/TCP cannot be reached, or does not let this host use what it asked for.
    TargetFailed = 502, "The storage target cannot be used";
    /// Another server did not give what it was asked for.
    FetchFailed = 502, "Could not be fetched";
    /// This host cannot run guests; the detail says why.
    KvmUnavailable = 503, "Cannot run guests";
    /// Memory, CPUs, connections or another resource of the host is used up.
    InsufficientResources = 503, "Insufficient resources";
    /// The host is shutting down.
    ShuttingDown = 503, "Shutting down";
    /// The guest does not answer in time.
    GuestTimeout = 504, "The guest does not answer";
    /// The store or a datastore has no space left.
    NoSpace = 507, "No space left";
}

impl Problem {
    /// A problem without pointer and hint.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            title: code.title().to_owned(),
            detail: detail.into(),
            pointer: None,
            hint: None,
            operation: None,
            retry_after_s: None,
        }
    }

    /// [`ErrorCode::InvalidRequest`] about one field.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, detail).with_pointer(pointer)
    }

    /// [`ErrorCode::NotFound`] about an object.
    pub fn not_found(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(
            ErrorCode::NotFound,
            format!("there is no {kind} \"{name}\""),
        )
    }

    /// Adds the field it is about.
    #[must_use]
    pub fn with_pointer(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the seconds after which another try makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = NonZeroU32::new(seconds);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if let Some(pointer) = &self.pointer {
            write!(f, " (at {pointer})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
