//! Snapshots of guests.

use axum::extract::{Path, State};
use lodge_api::image::SavedDiskParams;
use lodge_api::nvram::VmVariable;
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;
use lodge_api::snapshot::{Snapshot, SnapshotClone, SnapshotCreate, VmRevert};

use super::download::{BINARY, DOWNLOAD, answer, binary};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::conditions::Expected;
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

const LIST: &str = "/v1/snapshots";
const ONE: &str = "/v1/snapshots/{snapshot}";
const DISK_CONTENT: &str = "/v1/snapshots/{snapshot}/disks/{disk}/content";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::VmRead);
    let write = Access::Needs(Privilege::VmConfigure);
    let content = Access::Needs(Privilege::StorageRead);
    vec![
        post("/v1/vms/{vm}:snapshot", write, "vm_snapshot", vm_snapshot)
            .summary("Take a snapshot of a guest: its disks, and its memory if it runs")
            .description("One consistent point: a guest that runs is held meanwhile.")
            .takes::<SnapshotCreate>()
            .starts_operation("Under way; the operation's `target` is the snapshot."),
        post("/v1/vms/{vm}:revert", write, "vm_revert", vm_revert)
            .summary("Take a stopped guest back to a snapshot of it")
            .description("Disks and configuration become what they were; with memory, the guest goes on from there at once.")
            .takes::<VmRevert>()
            .starts_operation("Under way."),
        get(LIST, read, "snapshot_list", snapshot_list)
            .summary("List snapshots")
            .query::<ListParams>()
            .answers_page::<Snapshot>(),
        get(ONE, read, "snapshot_view", snapshot_view)
            .summary("Show a snapshot")
            .answers_object::<Snapshot>(200, "The snapshot."),
        post(
            "/v1/snapshots/{snapshot}:clone",
            write,
            "snapshot_clone",
            snapshot_clone,
        )
        .summary("Make a new guest of a snapshot")
        .description("It has copies of the disks and an identity of its own. From a snapshot with memory it starts at once, where the other was.")
        .takes::<SnapshotClone>()
        .starts_operation("Under way; the operation's `target` is the guest."),
        get("/v1/snapshots/{snapshot}/ova", content, "snapshot_export", snapshot_export)
            .summary("Download the guest of a snapshot as an OVA")
            .description("Its disks are as they were then, like after a power cut if it ran; its memory stays behind. The guest may run meanwhile.")
            .answers_other(200, "The archive.", Some((BINARY, binary()))),
        get("/v1/snapshots/{snapshot}/nvram", read, "snapshot_nvram", snapshot_nvram)
            .summary("List the UEFI variables that the guest of a snapshot had, with their data")
            .description("All of them, on one page; none of a guest that had not been started, or has no UEFI.")
            .answers_page::<VmVariable>(),
        get(DISK_CONTENT, content, "snapshot_download", snapshot_download)
            .summary("Download a disk of a snapshot, by the name that it had then, or what is another since an earlier one")
            .description(DOWNLOAD)
            .query::<SavedDiskParams>()
            .answers_other(200, "The content.", Some((BINARY, binary()))),
        delete(ONE, write, "snapshot_delete", snapshot_delete)
            .summary("Delete a snapshot")
            .description("Guests that were started from it run on.")
            .if_match()
            .deletes(),
    ]
}

async fn vm_snapshot(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<SnapshotCreate>,
) -> Answer {
    let operation = app.manager().vm_snapshot(&who.caller, &key, body).await?;
    reply::started(&app, wait, operation).await
}

async fn vm_revert(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<VmRevert>,
) -> Answer {
    let operation = app.manager().vm_revert(&who.caller, &key, body).await?;
    reply::started(&app, wait, operation).await
}

async fn snapshot_nvram(State(app): State<App>, Path(key): Path<String>) -> Answer {
    reply::value(&app.manager().snapshot_nvram(&key).await?)
}

async fn snapshot_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().snapshot_list(params).await?)
}

/// What a snapshot occupies changes without its revision, so it is always sent.
async fn snapshot_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let snapshot = app.manager().snapshot_view(&key).await?;
    reply::object(&snapshot, snapshot.revision)
}

async fn snapshot_clone(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<SnapshotClone>,
) -> Answer {
    let manager = app.manager();
    let operation = manager.snapshot_clone(&who.caller, &key, body).await?;
    reply::started(&app, wait, operation).await
}

async fn snapshot_export(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
) -> Answer {
    let download = app.manager().snapshot_export(&who.caller, &key).await?;
    Ok(answer(download))
}

async fn snapshot_download(
    State(app): State<App>,
    Path((key, disk)): Path<(String, String)>,
    who: Authenticated,
    Query(params): Query<SavedDiskParams>,
) -> Answer {
    let manager = app.manager();
    let download = manager
        .snapshot_disk_export(&who.caller, &key, &disk, params)
        .await?;
    Ok(answer(download))
}

async fn snapshot_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    app.manager()
        .snapshot_delete(&who.caller, &key, revision)
        .await?;
    reply::nothing()
}
