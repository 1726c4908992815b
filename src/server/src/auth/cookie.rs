//! The session cookie of browsers.

use http::HeaderMap;
use http::header::COOKIE;

/// Its name. The prefix makes browsers refuse it unless it is `Secure`, of path `/` and of
/// exactly this host, so no neighbour can set it.
const NAME: &str = "__Host-lodge";

/// `Set-Cookie` of a new session. It ends with the browser; the session's own end is the server's business.
pub fn session_cookie(token: &str) -> String {
    format!("{NAME}={token}; Path=/; Secure; HttpOnly; SameSite=Strict")
}

/// `Set-Cookie` that takes the session's away.
pub fn clear_cookie() -> String {
    format!("{NAME}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// The token in a request's cookie.
pub fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == NAME && !value.is_empty())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=b; __Host-lodge=; lodge=x"),
        );
        assert_eq!(session_token(&headers), None);
        headers.append(COOKIE, HeaderValue::from_static("c=d;__Host-lodge=t0k; e"));
        assert_eq!(session_token(&headers), Some("t0k"));
    }
}
