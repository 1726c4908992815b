//! JSON bodies of requests.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lodge_api::{ErrorCode, Problem};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::failure::Failure;
use crate::app::App;
use crate::listen::BodyError;

/// Most bytes of this request's JSON body: an extension set by the route.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

/// A body that has to be there.
pub struct Json<T>(pub T);

/// A body that may be absent.
pub struct OptionalJson<T>(pub Option<T>);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        match OptionalJson::from_request(request, app).await?.0 {
            Some(value) => Ok(Self(value)),
            None => Err(Problem::invalid("", "the request needs a JSON body")
                .with_hint("send it with Content-Type: application/json")
                .into()),
        }
    }
}

impl<T: DeserializeOwned> FromRequest<App> for OptionalJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let bytes = content(request, app).await?;
        bytes.map(|bytes| parse(&bytes)).transpose().map(Self)
    }
}

/// A body that is declared as JSON, if there is one.
async fn content(request: Request, app: &App) -> Result<Option<Bytes>, Failure> {
    let limit = request.extensions().get::<BodyLimit>().map_or(0, |l| l.0);
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(app.limits().json_body, collect(body, limit));
    let bytes = read.await.map_err(|_| {
        Failure::new(
            ErrorCode::RequestTimeout,
            "the body did not come within the time for it",
        )
    })??;
    if bytes.is_empty() {
        return Ok(None);
    }
    check_type(&parts.headers)?;
    Ok(Some(bytes))
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Failure> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::new(
            ErrorCode::PayloadTooLarge,
            format!("the body is larger than the {limit} bytes this method takes"),
        )),
        Err(error) => Err(broken_body(error.as_ref())),
    }
}

/// The problem of a body that ended early.
pub fn broken_body(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(stalled @ BodyError::Stalled(_)) = error.downcast_ref::<BodyError>() {
            return Failure::new(ErrorCode::RequestTimeout, stalled.to_string());
        }
        cause = error.source();
    }
    Failure::new(
        ErrorCode::InvalidRequest,
        format!("the body could not be read: {error}"),
    )
}

fn check_type(headers: &HeaderMap) -> Result<(), Failure> {
    let declared = headers.get(CONTENT_TYPE).map(|v| v.as_bytes());
    let text = declared.map(String::from_utf8_lossy);
    let essence = text.as_deref().map(|t| {
        t.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    match essence.as_deref() {
        Some("application/json" | "application/merge-patch+json") => Ok(()),
        other => {
            let detail = match other {
                Some(other) => format!("the body is declared as \"{}\"", other.escape_debug()),
                None => "the body has no Content-Type".to_owned(),
            };
            Err(Problem::new(ErrorCode::UnsupportedMediaType, detail)
                .with_hint("send Content-Type: application/json")
                .into())
        }
    }
}

/// Reads a value, or says where and why it is none.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        problem(error.inner(), pointer)
    })?;
    deserializer
        .end()
        .map_err(|error| problem(&error, String::new()))?;
    Ok(value)
}

fn problem(error: &serde_json::Error, mut pointer: String) -> Failure {
    if !error.is_data() {
        return Problem::invalid("", format!("the body is not JSON: {error}")).into();
    }
    let detail = error.to_string();
    if let Some(field) = unknown_field(&detail) {
        let last = format!("/{}", escape(field));
        if !pointer.ends_with(&last) {
            pointer.push_str(&last);
        }
    }
    Problem::invalid(pointer, detail).into()
}

/// The name in serde's "unknown field `x`, expected …".
pub fn unknown_field(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("unknown field `")?;
    rest.split_once("`, expected")
        .or_else(|| rest.split_once("`, there are no fields"))
        .map(|(name, _)| name)
}

/// The JSON pointer (RFC 6901) of a path.
fn pointer(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("/{index}")),
            Segment::Map { key } => text.push_str(&format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use lodge_api::vm::VmSpec;

    use super::*;

    fn refused(json: &str) -> Problem {
        let failure = parse::<VmSpec>(json.as_bytes()).unwrap_err();
        assert_eq!(failure.problem().code, ErrorCode::InvalidRequest);
        failure.problem().clone()
    }

    fn pointer_of(json: &str) -> String {
        refused(json).pointer.unwrap_or_default()
    }

    #[test]
    fn the_offending_field_is_named() {
        let cases = [
            (r#"{"name":"a","boot":{"kernel":"k"},"cpus":2}"#, "/cpus"),
            (
                r#"{"name":"a","boot":{"kernel":"k","args":""}}"#,
                "/boot/args",
            ),
            (
                r#"{"name":"a","boot":{"kernel":"k"},"nics":[{},{"net":1}]}"#,
                "/nics/1/net",
            ),
            (r#"{"name":"a","boot":{"kernel":"k"},"a/~b":1}"#, "/a~1~0b"),
            (r#"{"name":"A B","boot":{"kernel":"k"}}"#, "/name"),
            (
                r#"{"name":"a","boot":{"kernel":"k"},"vcpus":"two"}"#,
                "/vcpus",
            ),
            (
                r#"{"name":"a","boot":{"kernel":"k"},"vcpus":300}"#,
                "/vcpus",
            ),
            (
                r#"{"name":"a","boot":{"kernel":"k"},"memory":"lots"}"#,
                "/memory",
            ),
            (r#"{"name":"a","boot":{"kernel":"k"},"disks":{}}"#, "/disks"),
            (r#"{"vcpus":1}"#, ""),
        ];
        for (json, pointer) in cases {
            assert_eq!(pointer_of(json), pointer, "{json}");
        }
        assert!(
            refused(r#"{"vcpus":1}"#)
                .detail
                .contains("missing field `name`")
        );
    }

    #[test]
    fn syntax_errors_have_a_place() {
        for json in [
            "{\n  \"name\": }",
            "{",
            "",
            "[1,]",
            "{\"name\":\"a\"",
            "\u{feff}{}",
        ] {
            let detail = refused(json).detail;
            assert!(detail.contains("line"), "{detail}");
            assert!(detail.contains("column"), "{detail}");
        }
    }

    #[test]
    fn nothing_may_follow() {
        let json = r#"{"name":"a","boot":{"kernel":"k"}} {}"#;
        assert!(refused(json).detail.contains("trailing characters"));
    }

    #[test]
    fn depth_is_bounded() {
        let json = "[".repeat(100_000);
        let failure = parse::<serde_json::Value>(json.as_bytes()).unwrap_err();
        assert!(failure.problem().detail.contains("recursion limit"));
    }
}
