//! What anybody may know: that this is Lodge, and how to talk to it.

use axum::extract::State;
use axum::response::{Html, IntoResponse};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use lodge_api::{ApiInfo, EXTENSIONS, ROOT};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::app::App;
use crate::auth::authenticated;
use crate::route::{Access, Route, get};
use crate::wire::reply::{self, Answer};

pub fn routes() -> Vec<Route> {
    vec![
        get("/", Access::Public, "root_view", root_view)
            .summary("A page for people who open the host in a browser")
            .answers_other(200, "A page.", Some(("text/html", text()))),
        get(ROOT, Access::Public, "api_view", api_view)
            .summary("What this is and which API it speaks")
            .answers::<ApiInfo>(200, "The API."),
        get(
            "/v1/openapi.json",
            Access::Public,
            "openapi_view",
            openapi_view,
        )
        .summary("This document")
        .answers_other(
            200,
            "The OpenAPI document.",
            Some(("application/json", object())),
        ),
    ]
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

fn object() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Object).into()
}

async fn root_view() -> impl IntoResponse {
    Html(include_str!("root.html"))
}

/// Credentials that do not hold make no error here: this is how clients find that out.
async fn api_view(State(app): State<App>, parts: Parts) -> Answer {
    reply::value(&ApiInfo {
        product: "lodge".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.iter().map(|e| (*e).to_owned()).collect(),
        authenticated: matches!(authenticated(&app, &parts), Ok(Some(_))),
    })
}

async fn openapi_view(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], app.document())
}
