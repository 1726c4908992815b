//! Networks: the bridges guests attach to.

use axum::extract::{Path, State};
use lodge_api::network::{Network, NetworkCreate};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::conditions::Expected;
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};

const LIST: &str = "/v1/networks";
const ONE: &str = "/v1/networks/{network}";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::NetworkRead);
    let write = Access::Needs(Privilege::NetworkWrite);
    vec![
        get(LIST, read, "network_list", network_list)
            .summary("List networks")
            .query::<ListParams>()
            .answers_page::<Network>(),
        post(LIST, write, "network_create", network_create)
            .summary("Create a network")
            .takes::<NetworkCreate>()
            .creates::<Network>("The network."),
        get(ONE, read, "network_view", network_view)
            .summary("Show a network")
            .answers_object::<Network>(200, "The network."),
        delete(ONE, write, "network_delete", network_delete)
            .summary("Delete a network no guest is attached to")
            .if_match()
            .deletes(),
    ]
}

async fn network_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().network_list(&params)?)
}

async fn network_create(
    State(app): State<App>,
    who: Authenticated,
    Json(body): Json<NetworkCreate>,
) -> Answer {
    let network = app.manager().network_create(&who.caller, body).await?;
    let path = format!("{LIST}/{}", network.name);
    reply::created(&path, &network, Some(network.revision))
}

/// Carrier and addresses change without the revision, so it is always sent.
async fn network_view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    let network = app.manager().network_view(&key)?;
    reply::object(&network, network.revision)
}

async fn network_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    let manager = app.manager();
    manager.network_delete(&who.caller, &key, revision).await?;
    reply::nothing()
}
