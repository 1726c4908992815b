//! Images: uploads as streams.

use axum::body::Body;
use axum::extract::{Path, State};
use http::HeaderMap;
use lodge_api::image::{ExportParams, Image, ImageFetch, ImageUpload};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;

use super::content::upload_of;
use super::download::{BINARY, DOWNLOAD, answer, binary};
use super::fetch::{FETCHES, fetch_of};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::conditions::{Expected, Known};
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

const LIST: &str = "/v1/images";
const ONE: &str = "/v1/images/{image}";
const ONE_CONTENT: &str = "/v1/images/{image}/content";

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
                 `sha256`, leaves nothing behind. A disk image in qcow2, VMDK, VHD or VHDX is made into a raw one \
                 before the answer; meanwhile the operation of the upload tells how far that is.",
            )
            .query::<ImageUpload>()
            .takes_other(&[BINARY], binary())
            .creates::<Image>("The image."),
        post("/v1/images:fetch", write, "image_fetch", image_fetch)
            .summary("Make an image of what is at a URL")
            .description(FETCHES)
            .takes::<ImageFetch>()
            .starts_operation("Under way; the operation's `target` is the image."),
        get(ONE, read, "image_view", image_view)
            .summary("Show an image")
            .answers_object::<Image>(200, "The image."),
        get(ONE_CONTENT, read, "image_export", image_export)
            .summary("Download an image")
            .description(DOWNLOAD)
            .query::<ExportParams>()
            .answers_other(200, "The content.", Some((BINARY, binary()))),
        delete(ONE, write, "image_delete", image_delete)
            .summary("Delete an image no guest names")
            .if_match()
            .deletes(),
    ]
}

async fn image_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().image_list(&params)?)
}

async fn image_fetch(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<ImageFetch>,
) -> Answer {
    let fetch = fetch_of(&app, &body.url)?;
    let upload = ImageUpload {
        name: body.name,
        kind: body.kind,
        format: body.format,
        sha256: body.sha256,
    };
    let manager = app.manager();
    let operation = manager.image_fetch(&who.caller, upload, fetch).await?;
    reply::started(&app, wait, operation).await
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

async fn image_export(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Query(params): Query<ExportParams>,
) -> Answer {
    let manager = app.manager();
    let download = manager
        .image_export(&who.caller, &key, params.format)
        .await?;
    Ok(answer(download))
}

async fn image_upload(
    State(app): State<App>,
    who: Authenticated,
    Query(upload): Query<ImageUpload>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (length, content) = upload_of(&headers, body)?;
    let manager = app.manager();
    let result = manager
        .image_upload(&who.caller, upload, length, content.pieces)
        .await;
    let image = content.stalled.explain(&app, result)?;
    let path = format!("{LIST}/{}", image.name);
    reply::created(&path, &image, Some(image.revision))
}
