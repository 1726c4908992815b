//! Problems as HTTP responses.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use lodge_api::problem;
use lodge_api::{ErrorCode, Problem};

/// Why a request failed: what every handler returns on error.
#[derive(Debug, Clone)]
pub struct Failure(Box<Problem>);

impl Failure {
    /// A problem without pointer and hint.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// What went wrong.
    pub fn problem(&self) -> &Problem {
        &self.0
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(problem::CONTENT_TYPE),
        );
        if let Some(seconds) = problem.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.get()));
        }
        if problem.code == ErrorCode::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"lodge\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(Ok(path)) = problem.operation.as_deref().map(HeaderValue::try_from) {
            headers.insert(LOCATION, path);
        }
        response
    }
}
