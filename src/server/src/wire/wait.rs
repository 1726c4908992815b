//! `?wait=30s`.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use lodge_api::Problem;
use lodge_api::operation::WaitParams;

use super::failure::Failure;
use super::query::Query;

/// How long the caller waits for the end of the operation it starts; checked before it is started.
pub struct Wait(pub Option<Duration>);

impl<S: Sync> FromRequestParts<S> for Wait {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(params) = Query::<WaitParams>::from_request_parts(parts, state).await?;
        Ok(Self(params.wait.as_deref().map(parse_wait).transpose()?))
    }
}

/// Longest wait: proxies and clients give up on a silent request sooner or later.
pub const MAX_WAIT: Duration = Duration::from_secs(300);

/// Reads `500ms`, `30s` or `2m`, at most [`MAX_WAIT`].
///
/// # Errors
/// `InvalidRequest` at `?wait`.
pub fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let refuse =
        |detail: String| Problem::invalid("?wait", detail).with_hint("write 30s or 2m, at most 5m");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| refuse("the time to wait does not start with a number".to_owned()))?;
    let wait = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "" => return Err(refuse("the time to wait has no unit".to_owned())),
        _ => return Err(refuse("the time to wait has an unknown unit".to_owned())),
    };
    wait.filter(|wait| *wait <= MAX_WAIT)
        .ok_or_else(|| refuse("the time to wait is too long".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse_wait("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(parse_wait("5m").unwrap(), MAX_WAIT);
        assert_eq!(parse_wait("0s").unwrap(), Duration::ZERO);
        assert_eq!(parse_wait("250ms").unwrap(), Duration::from_millis(250));
        for bad in [
            "",
            "s",
            "30",
            "-1s",
            "1.5s",
            "6m",
            "301s",
            "1h",
            "99999999999999999999s",
            "18446744073709551615m",
            "3 s",
            "30s ",
        ] {
            let problem = parse_wait(bad).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("?wait"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_longer_than_allowed(text in "\\PC{0,24}") {
            if let Ok(wait) = parse_wait(&text) {
                prop_assert!(wait <= MAX_WAIT);
            }
        }

        #[test]
        fn numbers_mean_themselves(n in 0u64..=300) {
            prop_assert_eq!(parse_wait(&format!("{n}s")).unwrap().as_secs(), n);
        }
    }
}
