//! Disks.

use axum::body::Body;
use axum::extract::{Path, State};
use http::HeaderMap;
use lodge_api::disk::{Disk, DiskApply, DiskCreate, DiskMove, DiskPatch};
use lodge_api::image::ExportParams;
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;

use super::content::upload_of;
use super::download::{BINARY, DOWNLOAD, answer, binary};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, patch, post};
use crate::wire::conditions::Expected;
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

const LIST: &str = "/v1/disks";
const ONE: &str = "/v1/disks/{disk}";
const ONE_APPLY: &str = "/v1/disks/{disk}:apply";
const ONE_MOVE: &str = "/v1/disks/{disk}:move";
const ONE_CONTENT: &str = "/v1/disks/{disk}/content";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::StorageRead);
    let write = Access::Needs(Privilege::StorageWrite);
    vec![
        get(LIST, read, "disk_list", disk_list)
            .summary("List disks")
            .query::<ListParams>()
            .answers_page::<Disk>(),
        post(LIST, write, "disk_create", disk_create)
            .summary("Create a disk, empty or as a copy of an image")
            .takes::<DiskCreate>()
            .starts_operation("Under way; the operation's `target` is the disk."),
        get(ONE, read, "disk_view", disk_view)
            .summary("Show a disk")
            .answers_object::<Disk>(200, "The disk."),
        patch(ONE, write, "disk_update", disk_update)
            .summary("Rename or grow a disk")
            .description(
                "Guests that run with the disk are told that it has grown, unless they have it on SATA. It is not renamed while \
                 one runs.",
            )
            .takes::<DiskPatch>()
            .if_match()
            .answers_object::<Disk>(200, "Changed."),
        get(ONE_CONTENT, read, "disk_export", disk_export)
            .summary("Download a disk")
            .description(DOWNLOAD)
            .query::<ExportParams>()
            .answers_other(200, "The content.", Some((BINARY, binary()))),
        post(ONE_APPLY, write, "disk_apply", disk_apply)
            .summary("Write what changed to a disk that is as it was before")
            .description(
                "The body is a qcow2 of changes, as `GET /v1/snapshots/{snapshot}/disks/{disk}/content?since=…` makes them. The disk has to be \
                 as it was at the earlier snapshot, and no guest may run with it: what is not in the changes stays. A file that they name to be read upon is not looked for. Until \
                 the answer the disk stays what it was, and what is not complete, or has another `sha256`, changes nothing.",
            )
            .query::<DiskApply>()
            .takes_other(&[BINARY], binary())
            .answers_object::<Disk>(200, "Changed."),
        post(ONE_MOVE, write, "disk_move", disk_move)
            .summary("Move a disk to another datastore")
            .description(
                "No guest may run with it. Until the end of the operation the disk is where it was. Snapshots of it stay where they are.",
            )
            .takes::<DiskMove>()
            .starts_operation("Under way; the operation's `target` is the disk."),
        delete(ONE, write, "disk_delete", disk_delete)
            .summary("Delete a disk no guest names")
            .if_match()
            .deletes(),
    ]
}

async fn disk_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().disk_list(params).await?)
}

async fn disk_create(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<DiskCreate>,
) -> Answer {
    let operation = app.manager().disk_create(&who.caller, body).await?;
    reply::started(&app, wait, operation).await
}

/// What a disk occupies changes without its revision, so it is always sent.
async fn disk_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let disk = app.manager().disk_view(&key).await?;
    reply::object(&disk, disk.revision)
}

async fn disk_update(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
    Json(body): Json<DiskPatch>,
) -> Answer {
    let manager = app.manager();
    let disk = manager
        .disk_patch(&who.caller, &key, body, revision)
        .await?;
    reply::object(&disk, disk.revision)
}

async fn disk_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    app.manager()
        .disk_delete(&who.caller, &key, revision)
        .await?;
    reply::nothing()
}

async fn disk_apply(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Query(apply): Query<DiskApply>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (length, content) = upload_of(&headers, body)?;
    let manager = app.manager();
    let result = manager
        .disk_apply(&who.caller, &key, apply, length, content.pieces)
        .await;
    let disk = content.stalled.explain(&app, result)?;
    reply::object(&disk, disk.revision)
}

async fn disk_move(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<DiskMove>,
) -> Answer {
    let operation = app.manager().disk_move(&who.caller, &key, body).await?;
    reply::started(&app, wait, operation).await
}

async fn disk_export(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Query(params): Query<ExportParams>,
) -> Answer {
    let manager = app.manager();
    let download = manager
        .disk_export(&who.caller, &key, params.format)
        .await?;
    Ok(answer(download))
}
