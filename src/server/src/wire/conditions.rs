//! `ETag`, `If-Match` and `If-None-Match`.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use lodge_api::{ErrorCode, Problem};
use lodge_manager::IfMatch;

use super::failure::Failure;

/// The entity tag of a revision.
pub fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The condition under which a change is wanted.
pub struct Expected(pub IfMatch);

/// What a reader has already.
#[derive(Debug, Default)]
pub struct Known(Option<String>);

impl Known {
    /// Whether the reader has this revision.
    pub fn is(&self, revision: u64) -> bool {
        let Some(list) = &self.0 else { return false };
        let tag = etag(revision);
        // Reading compares weakly (RFC 9110, 13.1.2): a proxy may have weakened our tag.
        list.split(',')
            .map(str::trim)
            .any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag)
    }
}

impl<S: Sync> FromRequestParts<S> for Expected {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let text = one(&parts.headers, &IF_MATCH)?;
        Ok(Self(text.map_or(Ok(IfMatch::Any), |t| expected(&t))?))
    }
}

impl<S: Sync> FromRequestParts<S> for Known {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(one(&parts.headers, &IF_NONE_MATCH)?))
    }
}

fn one(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    match value {
        Some(text) => Ok(Some(text.trim().to_owned())),
        None => Err(Problem::new(
            ErrorCode::InvalidRequest,
            format!("the header {name} is not one line of plain text"),
        )),
    }
}

/// A tag that is not ours is the tag of another state: the precondition fails, it is no syntax error.
fn expected(text: &str) -> Result<IfMatch, Problem> {
    if text == "*" {
        return Ok(IfMatch::Any);
    }
    let revision = text
        .strip_prefix('"')
        .and_then(|t| t.strip_suffix('"'))
        .filter(|t| t.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|t| t.parse().ok());
    match revision {
        Some(revision) => Ok(IfMatch::Revision(revision)),
        None => Err(Problem::new(
            ErrorCode::PreconditionFailed,
            "If-Match does not name one revision of this object",
        )
        .with_hint("send the ETag of an earlier answer, like \"17\", with its quotes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_revision_or_any() {
        assert_eq!(expected("*").unwrap(), IfMatch::Any);
        assert_eq!(expected("\"17\"").unwrap(), IfMatch::Revision(17));
        for bad in [
            "17",
            "\"\"",
            "\"-1\"",
            "W/\"17\"",
            "\"1\", \"2\"",
            "\"99999999999999999999\"",
            "\"+1\"",
        ] {
            assert_eq!(
                expected(bad).unwrap_err().code,
                ErrorCode::PreconditionFailed,
                "{bad}"
            );
        }
    }

    #[test]
    fn readers_may_list_what_they_have() {
        let known = |t: &str| Known(Some(t.to_owned()));
        assert!(known("\"1\", W/\"2\"").is(2));
        assert!(known("*").is(5));
        assert!(!known("\"1\"").is(2));
        assert!(!Known::default().is(1));
    }
}
