//! Uploads: bodies that are streamed, however long they take.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use lodge_api::{ErrorCode, Problem};

use super::download::BINARY;
use crate::app::App;
use crate::wire::json::broken_body;

/// The pieces of a body.
pub struct Content {
    /// Any break is an I/O error for the manager; that it was a stall is kept for the answer.
    pub pieces: BoxStream<'static, io::Result<Bytes>>,
    /// Whether it was one.
    pub stalled: Stalled,
}

/// Whether a body has paused for too long.
#[derive(Clone)]
pub struct Stalled(Arc<AtomicBool>);

impl Stalled {
    /// What came of an upload, and if it was given up for a pause, that.
    pub fn explain<T>(&self, app: &App, result: Result<T, Problem>) -> Result<T, Problem> {
        if result.is_ok() || !self.0.load(Ordering::Relaxed) {
            return result;
        }
        let limit = app.limits().body_progress.as_secs();
        let detail = format!("the upload paused for {limit} seconds and was given up");
        Err(Problem::new(ErrorCode::RequestTimeout, detail))
    }
}

/// The declared length of a body, and its pieces.
///
/// # Errors
/// `UnsupportedMediaType` for a form.
pub fn upload_of(headers: &HeaderMap, body: Body) -> Result<(Option<u64>, Content), Problem> {
    check_type(headers)?;
    let stalled = Stalled(Arc::new(AtomicBool::new(false)));
    let seen = stalled.clone();
    let pieces = body.into_data_stream().map_err(move |error| {
        let failure = broken_body(&error);
        if failure.problem().code == ErrorCode::RequestTimeout {
            seen.0.store(true, Ordering::Relaxed);
        }
        io::Error::other(failure.problem().detail.clone())
    });
    let content = Content {
        pieces: pieces.boxed(),
        stalled,
    };
    Ok((declared_length(headers), content))
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(CONTENT_TYPE) {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(BINARY.as_bytes()) => Ok(()),
        _ => Err(Problem::new(
            ErrorCode::UnsupportedMediaType,
            "a file is uploaded as it is, without a form around it",
        )
        .with_hint("send Content-Type: application/octet-stream (curl: -T FILE -X POST -H …)")),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
