//! NVMe over TCP: disks of other machines, and disks of this host for others.

use axum::extract::{Path, State};
use lodge_api::nvme::{
    NvmeConnect, NvmeConnection, NvmeDiscover, NvmeExport, NvmeExportCreate, NvmeOffers,
};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::conditions::Expected;
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

const CONNECTIONS: &str = "/v1/nvme-connections";
const CONNECTION: &str = "/v1/nvme-connections/{connection}";
const DISCOVER: &str = "/v1/nvme-connections:discover";
const EXPORTS: &str = "/v1/nvme-exports";
const EXPORT: &str = "/v1/nvme-exports/{export}";

pub fn routes() -> Vec<Route> {
    connections().into_iter().chain(exports()).collect()
}

fn connections() -> Vec<Route> {
    let read = Access::Needs(Privilege::StorageRead);
    let write = Access::Needs(Privilege::SystemConfigure);
    vec![
        get(CONNECTIONS, read, "nvmeconnection_list", connection_list)
            .summary("List connections to disks of other machines")
            .query::<ListParams>()
            .answers_page::<NvmeConnection>(),
        post(CONNECTIONS, write, "nvmeconnection_create", connection_create)
            .summary("Connect to a subsystem of another machine, by NVMe over TCP")
            .description(
                "Its disks are in `GET /v1/system/disks` then, and become datastores as those of the host do. The host connects again whenever \
                 it starts, and when the connection is lost. The operation fails with `target_failed`, and says what is in the way, where the \
                 target cannot be reached, has no such subsystem, or does not allow this host to use it.",
            )
            .takes::<NvmeConnect>()
            .starts_operation("Under way; the operation's `target` is the connection."),
        // The host is made to connect to somebody.
        get(DISCOVER, write, "nvmeconnection_discover", connection_discover)
            .summary("List what a target offers to this host")
            .description("Answers within 20 s. Targets do not list what they do not allow this host to use.")
            .query::<NvmeDiscover>()
            .answers::<NvmeOffers>(200, "What there is."),
        get(CONNECTION, read, "nvmeconnection_view", connection_view)
            .summary("Show a connection")
            .answers_object::<NvmeConnection>(200, "The connection."),
        delete(CONNECTION, write, "nvmeconnection_delete", connection_delete)
            .summary("Disconnect")
            .description("Refused while a datastore is on one of its disks.")
            .if_match()
            .deletes(),
    ]
}

fn exports() -> Vec<Route> {
    let read = Access::Needs(Privilege::StorageRead);
    let write = Access::Needs(Privilege::SystemConfigure);
    vec![
        get(EXPORTS, read, "nvmeexport_list", export_list)
            .summary("List disks of the host that other machines can use")
            .query::<ListParams>()
            .answers_page::<NvmeExport>(),
        post(EXPORTS, write, "nvmeexport_create", export_create)
            .summary("Let other machines use a disk of the host, by NVMe over TCP")
            .description(
                "`GET /v1/system/disks` lists the disks. One that is not blank is refused without `erase`, unless it was exported before: others \
                 find on it what they had. One that is in use is refused always. What is sent is not encrypted, and hosts are known by their \
                 names alone: use a network that others are not on.",
            )
            .takes::<NvmeExportCreate>()
            .starts_operation("Under way; the operation's `target` is the export."),
        get(EXPORT, read, "nvmeexport_view", export_view)
            .summary("Show an export")
            .answers_object::<NvmeExport>(200, "The export."),
        delete(EXPORT, write, "nvmeexport_delete", export_delete)
            .summary("Let other machines use a disk no longer")
            .description("They lose it at once. What they have on it stays.")
            .if_match()
            .deletes(),
    ]
}

async fn connection_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().connection_list(&params)?)
}

async fn connection_create(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<NvmeConnect>,
) -> Answer {
    let operation = app.manager().connection_create(&who.caller, body).await?;
    reply::started(&app, wait, operation).await
}

async fn connection_discover(State(app): State<App>, Query(query): Query<NvmeDiscover>) -> Answer {
    reply::value(&app.manager().connection_discover(&query).await?)
}

/// Its state changes without its revision, so it is always sent.
async fn connection_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let connection = app.manager().connection_view(&key)?;
    reply::object(&connection, connection.revision)
}

async fn connection_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    let manager = app.manager();
    manager
        .connection_delete(&who.caller, &key, revision)
        .await?;
    reply::nothing()
}

async fn export_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().nvme_export_list(&params)?)
}

async fn export_create(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<NvmeExportCreate>,
) -> Answer {
    let operation = app.manager().nvme_export_create(&who.caller, body).await?;
    reply::started(&app, wait, operation).await
}

/// Whether others can use it changes without its revision.
async fn export_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let export = app.manager().nvme_export_view(&key)?;
    reply::object(&export, export.revision)
}

async fn export_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    let manager = app.manager();
    manager
        .nvme_export_delete(&who.caller, &key, revision)
        .await?;
    reply::nothing()
}
