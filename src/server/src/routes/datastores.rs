//! Datastores.

use axum::extract::{Path, State};
use lodge_api::datastore::{Datastore, DatastoreCreate, DatastorePatch};
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

const LIST: &str = "/v1/datastores";
const ONE: &str = "/v1/datastores/{datastore}";
const ONE_GROW: &str = "/v1/datastores/{datastore}:grow";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::StorageRead);
    // Disks of the host are erased.
    let write = Access::Needs(Privilege::SystemConfigure);
    vec![
        get(LIST, read, "datastore_list", datastore_list)
            .summary("List datastores")
            .query::<ListParams>()
            .answers_page::<Datastore>(),
        post(LIST, write, "datastore_create", datastore_create)
            .summary("Make a datastore on a disk of the host or on an NFS server, or take one over")
            .description(
                "`GET /v1/system/disks` lists the disks. One that is not blank is refused without `erase`, and one that is in use always. A directory of an NFS \
                 server is to be there, and exported to this host for writing.",
            )
            .takes::<DatastoreCreate>()
            .starts_operation("Under way; the operation's `target` is the datastore."),
        get(ONE, read, "datastore_view", datastore_view)
            .summary("Show a datastore")
            .answers_object::<Datastore>(200, "The datastore."),
        patch(ONE, write, "datastore_update", datastore_update)
            .summary("Rename a datastore")
            .takes::<DatastorePatch>()
            .if_match()
            .answers_object::<Datastore>(200, "Changed."),
        post(ONE_GROW, write, "datastore_grow", datastore_grow)
            .summary("Take all of a disk that has become larger")
            .answers_object::<Datastore>(200, "With its new size."),
        delete(ONE, write, "datastore_delete", datastore_delete)
            .summary("Forget a datastore with nothing on it")
            .description("Its disk is left as it is, and is not used any more.")
            .if_match()
            .deletes(),
    ]
}

async fn datastore_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().datastore_list(&params)?)
}

async fn datastore_create(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<DatastoreCreate>,
) -> Answer {
    let operation = app.manager().datastore_create(&who.caller, body).await?;
    reply::started(&app, wait, operation).await
}

/// What is free changes without its revision, so it is always sent.
async fn datastore_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let datastore = app.manager().datastore_view(&key)?;
    reply::object(&datastore, datastore.revision)
}

async fn datastore_update(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
    Json(body): Json<DatastorePatch>,
) -> Answer {
    let manager = app.manager();
    let datastore = manager
        .datastore_patch(&who.caller, &key, body, revision)
        .await?;
    reply::object(&datastore, datastore.revision)
}

async fn datastore_grow(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
) -> Answer {
    let datastore = app.manager().datastore_grow(&who.caller, &key).await?;
    reply::object(&datastore, datastore.revision)
}

async fn datastore_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    let manager = app.manager();
    manager
        .datastore_delete(&who.caller, &key, revision)
        .await?;
    reply::nothing()
}
