//! Where a request carries its credential.

use http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{HeaderMap, Method};
use lodge_api::{ErrorCode, Problem};

use super::cookie::session_token;

/// A header only a script of our own origin can send: others need a permission (CORS) nobody gives.
const OWN_SCRIPT: &str = "x-lodge-request";

/// Before the token in a WebSocket's list of subprotocols; browsers cannot send `Authorization` there.
const WEBSOCKET_BEARER: &str = "bearer.";

/// The credential a request carries, if any.
///
/// # Errors
/// `Unauthorized` for an `Authorization` that is no bearer token; `Forbidden` for a cookie that
/// another site may have made the browser send.
pub fn credential(parts: &Parts) -> Result<Option<String>, Problem> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer);
        return token.map(|t| Some(t.to_owned())).ok_or_else(|| {
            Problem::new(
                ErrorCode::Unauthorized,
                "the Authorization header is no bearer token",
            )
            .with_hint("send Authorization: Bearer TOKEN")
        });
    }
    if let Some(token) = websocket_token(&parts.headers) {
        return Ok(Some(token));
    }
    let Some(token) = session_token(&parts.headers) else {
        return Ok(None);
    };
    if needs_proof(parts) && !proves_own_origin(parts) {
        return Err(Problem::new(
            ErrorCode::Forbidden,
            "a request with the session cookie must show that it comes from this host's own pages",
        )
        .with_hint("send X-Lodge-Request: 1, or use Authorization: Bearer"));
    }
    Ok(Some(token.to_owned()))
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn websocket_token(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_BEARER))
        .map(str::to_owned)
}

/// Changes, and WebSockets: browsers open those for any page, without asking.
fn needs_proof(parts: &Parts) -> bool {
    let reads = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    !reads || parts.headers.contains_key(http::header::UPGRADE)
}

fn proves_own_origin(parts: &Parts) -> bool {
    match parts.headers.get(ORIGIN) {
        // Where the browser says where it comes from, that counts, whatever else is there.
        Some(origin) => {
            let host = parts.uri.authority().map(|a| a.as_str()).or_else(|| {
                let host = parts.headers.get(HOST)?;
                host.to_str().ok()
            });
            let origin = origin
                .to_str()
                .ok()
                .and_then(|o| o.strip_prefix("https://"));
            matches!((origin, host), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
        }
        None => parts.headers.contains_key(OWN_SCRIPT),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/v1/vms");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn found(method: &str, headers: &[(&str, &str)]) -> Option<String> {
        credential(&parts(method, headers)).unwrap()
    }

    const COOKIE: (&str, &str) = ("cookie", "__Host-lodge=c");
    const HOST: (&str, &str) = ("host", "lodge:8443");

    #[test]
    fn bearer_comes_first() {
        let header = ("authorization", "bearer  b");
        assert_eq!(found("POST", &[header, COOKIE]).as_deref(), Some("b"));
        for bad in ["Basic YTpi", "Bearer", "Bearer ", "b"] {
            let error = credential(&parts("GET", &[("authorization", bad), COOKIE])).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unauthorized, "{bad}");
        }
    }

    #[test]
    fn cookies_change_nothing_without_proof() {
        assert_eq!(found("GET", &[COOKIE]).as_deref(), Some("c"));
        for proof in [("x-lodge-request", "1"), ("origin", "https://lodge:8443")] {
            assert_eq!(found("POST", &[COOKIE, HOST, proof]).as_deref(), Some("c"));
        }
        for headers in [
            &[COOKIE, HOST][..],
            &[COOKIE, HOST, ("origin", "https://evil.example")],
            &[COOKIE, HOST, ("origin", "http://lodge:8443")],
            &[COOKIE, HOST, ("origin", "null"), ("x-lodge-request", "1")],
        ] {
            let error = credential(&parts("DELETE", headers)).unwrap_err();
            assert_eq!(error.code, ErrorCode::Forbidden);
        }
        let upgrade = [COOKIE, HOST, ("upgrade", "websocket")];
        assert!(credential(&parts("GET", &upgrade)).is_err());
    }

    #[test]
    fn browsers_name_the_token_as_a_subprotocol() {
        let header = ("sec-websocket-protocol", "lodge, bearer.abc");
        assert_eq!(found("GET", &[header]).as_deref(), Some("abc"));
        assert_eq!(found("GET", &[("sec-websocket-protocol", "lodge")]), None);
    }

    proptest::proptest! {
        /// Whatever the headers hold, the credential is one that was sent, and never one of another site.
        #[test]
        fn any_headers_are_taken(
            authorization in proptest::option::of(proptest::collection::vec(0x20u8..=0xff, 0..40)),
            cookie in proptest::option::of("[ -~]{0,40}|__Host-lodge=[a-z]{0,8}"),
            origin in proptest::option::of("[ -~]{0,30}"),
        ) {
            let mut request = Request::builder().method("POST").uri("/v1/vms").header("host", "h");
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            for (name, value) in [("cookie", &cookie), ("origin", &origin)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            if let Ok(request) = request.body(()) {
                let (parts, ()) = request.into_parts();
                if let Ok(Some(token)) = credential(&parts) {
                    proptest::prop_assert!(!token.is_empty());
                    let by_header = parts.headers.contains_key("authorization");
                    proptest::prop_assert!(by_header || origin.as_deref() == Some("https://h"));
                }
            }
        }
    }
}
