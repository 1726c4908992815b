//! Successful answers.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use lodge_api::operation::{Operation, OperationStatus};
use lodge_api::{ErrorCode, Problem, ROOT};
use serde::Serialize;

use super::conditions::{Known, etag};
use super::failure::Failure;
use super::wait::Wait;
use crate::app::App;

/// What every handler returns.
pub type Answer = Result<Response, Failure>;

/// A value as JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        Failure::new(
            ErrorCode::Internal,
            format!("an answer could not be written as JSON: {error}"),
        )
    })?;
    let mut response = (status, body).into_response();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// 200 with a value that has no revision.
pub fn value<T: Serialize>(value: &T) -> Answer {
    json(StatusCode::OK, value)
}

/// 200 with an object and its entity tag.
pub fn object<T: Serialize>(object: &T, revision: u64) -> Answer {
    let response = json(StatusCode::OK, object)?;
    Ok(with(response, ETAG, &etag(revision)))
}

/// 200 with an object, or 304 when the reader has it.
pub fn view<T: Serialize>(known: &Known, value: &T, revision: u64) -> Answer {
    if known.is(revision) {
        let response = StatusCode::NOT_MODIFIED.into_response();
        return Ok(with(response, ETAG, &etag(revision)));
    }
    object(value, revision)
}

/// 201 with a new object and where it is.
pub fn created<T: Serialize>(path: &str, object: &T, revision: Option<u64>) -> Answer {
    let mut response = with(json(StatusCode::CREATED, object)?, LOCATION, path);
    if let Some(revision) = revision {
        response = with(response, ETAG, &etag(revision));
    }
    Ok(response)
}

/// 204.
pub fn nothing() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// An operation that was started: 202 and where it is. Or, where the caller waited and it ended:
/// 200 with the operation when it went well, and the operation's own problem when not.
pub async fn started(app: &App, Wait(wait): Wait, operation: Operation) -> Answer {
    let Some(wait) = wait else {
        return accepted(&operation);
    };
    let operation = app.wait_for(operation.id, wait).await?;
    match operation.status {
        OperationStatus::Running => accepted(&operation),
        OperationStatus::Succeeded => {
            let response = json(StatusCode::OK, &operation)?;
            Ok(with(response, LOCATION, &operation_path(&operation)))
        }
        OperationStatus::Failed => Err(failed(&operation, ErrorCode::Internal, "failed")),
        OperationStatus::Cancelled => {
            Err(failed(&operation, ErrorCode::Cancelled, "was cancelled"))
        }
    }
}

fn accepted(operation: &Operation) -> Answer {
    let response = json(StatusCode::ACCEPTED, operation)?;
    Ok(with(response, LOCATION, &operation_path(operation)))
}

fn failed(operation: &Operation, code: ErrorCode, what: &str) -> Failure {
    let mut problem = operation
        .error
        .clone()
        .unwrap_or_else(|| Problem::new(code, format!("the operation {} {what}", operation.kind)));
    problem.operation = Some(operation_path(operation).into());
    problem.into()
}

/// Path of an operation.
pub fn operation_path(operation: &Operation) -> String {
    format!("{ROOT}/operations/{}", operation.id)
}

/// Adds a header; a value that cannot be one is left out.
pub fn with(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
