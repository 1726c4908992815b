//! Verbs at the end of paths: `/v1/vms/web-1:start`.
//!
//! The router matches whole segments. So before it looks at a path, a verb becomes a segment of
//! its own that still starts with the colon; routes are registered in the same form, and nothing
//! else can be: a request whose path has such a segment already is none of ours.

use http::Uri;
use http::uri::PathAndQuery;

/// The path for the router: `/v1/vms/web-1:start` becomes `/v1/vms/web-1/:start`.
///
/// `None` when the path has a segment that starts with a colon and so cannot be meant.
pub fn split_verb(path: &str) -> Option<String> {
    if path.split('/').any(|segment| segment.starts_with(':')) {
        return None;
    }
    let start = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[start..].rfind(':') {
        Some(colon) => {
            let (object, verb) = path.split_at(start + colon);
            Some(format!("{object}/{verb}"))
        }
        None => Some(path.to_owned()),
    }
}

/// `uri` with its path as [`split_verb`] makes it.
pub fn for_router(uri: &Uri) -> Option<Uri> {
    if !uri.path().contains(':') {
        return Some(uri.clone());
    }
    let mut path = split_verb(uri.path())?;
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn verbs_become_segments() {
        let cases = [
            ("/v1/vms", Some("/v1/vms")),
            ("/v1/vms/web-1", Some("/v1/vms/web-1")),
            ("/v1/vms/web-1:start", Some("/v1/vms/web-1/:start")),
            ("/v1/vms/a:b:start", Some("/v1/vms/a:b/:start")),
            ("/v1/vms/web-1:", Some("/v1/vms/web-1/:")),
            ("/v1/system:reboot", Some("/v1/system/:reboot")),
            ("/v1/vms/a:b/console", Some("/v1/vms/a:b/console")),
            ("/v1/vms/:start", None),
            ("/v1/vms/web-1/:start", None),
            ("/:x/y", None),
            ("", Some("")),
            ("/", Some("/")),
        ];
        for (path, expected) in cases {
            assert_eq!(split_verb(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_query_stays() {
        let uri: Uri = "https://h:1/v1/vms/a:start?wait=30s&x=:y".parse().unwrap();
        let made = for_router(&uri).unwrap();
        assert_eq!(
            made.to_string(),
            "https://h:1/v1/vms/a/:start?wait=30s&x=:y"
        );
    }

    proptest! {
        #[test]
        fn any_path_is_split_or_refused(path in "[/:a-z%.~-]{0,40}") {
            if let Some(made) = split_verb(&path) {
                prop_assert_eq!(made.replace("/:", ":"), path);
                prop_assert!(made.matches("/:").count() <= 1);
            } else {
                prop_assert!(path.contains("/:") || path.starts_with(':'));
            }
        }

        #[test]
        fn any_uri_is_taken(text in "\\PC{0,60}") {
            if let Ok(uri) = text.parse::<Uri>() {
                let _ = for_router(&uri);
            }
        }
    }
}
