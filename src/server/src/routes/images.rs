//! Images: uploads as streams.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Path, State};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use lodge_api::image::{Image, ImageUpload};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;
use lodge_api::{ErrorCode, Problem};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::conditions::{Expected, Known};
use crate::wire::json::broken_body;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};

const LIST: &str = "/v1/images";
const ONE: &str = "/v1/images/{image}";
const CONTENT: &str = "application/octet-stream";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::StorageRead);
    let write = Access::Needs(Privilege::StorageWrite);
    vec![
        get(LIST, read, "image_list", image_list)
            .summary("List images")
            .query::<ListParams>()
            .answers_page::<Image>(),
        post(LIST, write, "image_upload", image_upload)
            .summary("Upload an image")
            .description(
                "The body is the content itself. It may take as long as it likes, but not pause \
                 for a minute. What is not complete, not what `kind` says, or has another \
                 `sha256`, leaves nothing behind.",
            )
            .query::<ImageUpload>()
            .takes_other(&[CONTENT], binary())
            .creates::<Image>("The image."),
        get(ONE, read, "image_view", image_view)
            .summary("Show an image")
            .answers_object::<Image>(200, "The image."),
        delete(ONE, write, "image_delete", image_delete)
            .summary("Delete an image no guest names")
            .if_match()
            .deletes(),
    ]
}

fn binary() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .into()
}

async fn image_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().image_list(&params)?)
}

async fn image_view(State(app): State<App>, Path(key): Path<String>, known: Known) -> Answer {
    let image = app.manager().image_view(&key)?;
    reply::view(&known, &image, image.revision)
}

async fn image_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    let manager = app.manager();
    manager.image_delete(&who.caller, &key, revision).await?;
    reply::nothing()
}

async fn image_upload(
    State(app): State<App>,
    who: Authenticated,
    Query(upload): Query<ImageUpload>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    check_type(&headers)?;
    let stalled = Arc::new(AtomicBool::new(false));
    let content = content(body, Arc::clone(&stalled));
    let length = declared_length(&headers);
    let manager = app.manager();
    let result = manager
        .image_upload(&who.caller, upload, length, content)
        .await;
    let image = match result {
        Err(_) if stalled.load(Ordering::Relaxed) => {
            let limit = app.limits().body_progress.as_secs();
            let detail = format!("the upload paused for {limit} seconds and was given up");
            return Err(Problem::new(ErrorCode::RequestTimeout, detail).into());
        }
        result => result?,
    };
    let path = format!("{LIST}/{}", image.name);
    reply::created(&path, &image, Some(image.revision))
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(CONTENT_TYPE) {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(CONTENT.as_bytes()) => Ok(()),
        _ => Err(Problem::new(
            ErrorCode::UnsupportedMediaType,
            "an image is uploaded as it is, without a form around it",
        )
        .with_hint("send Content-Type: application/octet-stream (curl: -T FILE -X POST -H …)")),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The pieces of the content. The manager sees any break as an I/O error; that it was a stall is
/// kept for the answer.
fn content(body: Body, stalled: Arc<AtomicBool>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    body.into_data_stream().map_err(move |error| {
        let failure = broken_body(&error);
        if failure.problem().code == ErrorCode::RequestTimeout {
            stalled.store(true, Ordering::Relaxed);
        }
        io::Error::other(failure.problem().detail.clone())
    })
}
