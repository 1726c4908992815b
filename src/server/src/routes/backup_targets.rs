//! Places to which the host writes backups.

use axum::extract::{Path, State};
use lodge_api::backup::{BackupTarget, BackupTargetCreate, BackupTargetPatch};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, patch, post};
use crate::wire::conditions::Expected;
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

const LIST: &str = "/v1/backup-targets";
const ONE: &str = "/v1/backup-targets/{target}";

const TRIED: &str = "A small file is written there, read and removed first. `https` services need a certificate that a public authority vouches for, or \
    one of `/v1/authorities`. An error's `pointer` names what is to be corrected.";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::StorageRead);
    // The host connects to where it says, and writes there.
    let write = Access::Needs(Privilege::SystemConfigure);
    vec![
        get(LIST, read, "target_list", target_list)
            .summary("List backup targets")
            .query::<ListParams>()
            .answers_page::<BackupTarget>(),
        post(LIST, write, "target_create", target_create)
            .summary("Add a backup target: a folder on a datastore, or an S3 bucket")
            .description(TRIED)
            .takes::<BackupTargetCreate>()
            .starts_operation("Being tried; the operation's `target` is the backup target."),
        get(ONE, read, "target_view", target_view)
            .summary("Show a backup target")
            .answers_object::<BackupTarget>(200, "The backup target, without its secret key."),
        patch(ONE, write, "target_update", target_update)
            .summary("Rename a backup target, or change how it is reached")
            .description(TRIED)
            .takes::<BackupTargetPatch>()
            .if_match()
            .starts_operation("Being tried; the operation's `target` is the backup target."),
        delete(ONE, write, "target_delete", target_delete)
            .summary("Forget a backup target")
            .description("What is there stays, and is known again when the target is added again.")
            .if_match()
            .deletes(),
    ]
}

async fn target_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().target_list(&params)?)
}

async fn target_create(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<BackupTargetCreate>,
) -> Answer {
    let operation = app.manager().target_create(&who.caller, body).await?;
    reply::started(&app, wait, operation).await
}

/// What is on it changes without its revision, so it is always sent.
async fn target_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let target = app.manager().target_view(&key)?;
    reply::object(&target, target.revision)
}

async fn target_update(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    Expected(revision): Expected,
    Json(body): Json<BackupTargetPatch>,
) -> Answer {
    let manager = app.manager();
    let operation = manager
        .target_patch(&who.caller, &key, body, revision)
        .await?;
    reply::started(&app, wait, operation).await
}

async fn target_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    let manager = app.manager();
    manager.target_delete(&who.caller, &key, revision).await?;
    reply::nothing()
}
