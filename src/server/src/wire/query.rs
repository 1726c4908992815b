//! Query parameters.

use axum::extract::FromRequestParts;
use http::request::Parts;
use lodge_api::Problem;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::json::unknown_field;

/// Typed query parameters; a wrong one is named as `?name`.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Failure> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let path = error.path().to_string();
        let detail = error.into_inner().to_string();
        let name = match unknown_field(&detail) {
            Some(name) => name,
            None if path == "." => missing_field(&detail).unwrap_or_default(),
            None => path.as_str(),
        };
        Problem::invalid(format!("?{name}"), detail).into()
    })
}

fn missing_field(message: &str) -> Option<&str> {
    message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
}

#[cfg(test)]
mod tests {
    use lodge_api::image::ImageUpload;
    use lodge_api::page::ListParams;

    use super::*;

    fn pointer<T: DeserializeOwned>(query: &str) -> Option<String> {
        match parse::<T>(query) {
            Ok(_) => None,
            Err(failure) => failure.problem().pointer.clone(),
        }
    }

    #[test]
    fn the_parameter_is_named() {
        assert_eq!(pointer::<ListParams>("limit=5&filter=a%20eq%20b"), None);
        assert_eq!(pointer::<ListParams>("limit=x").as_deref(), Some("?limit"));
        assert_eq!(pointer::<ListParams>("limt=1").as_deref(), Some("?limt"));
        assert_eq!(
            pointer::<ImageUpload>("kind=disk").as_deref(),
            Some("?name")
        );
        assert_eq!(
            pointer::<ImageUpload>("name=a&kind=x").as_deref(),
            Some("?kind")
        );
        assert_eq!(
            pointer::<ImageUpload>("name=A&kind=disk").as_deref(),
            Some("?name")
        );
    }
}
