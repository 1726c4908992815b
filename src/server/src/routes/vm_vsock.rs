//! Connections into a guest over a WebSocket.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use lodge_api::privilege::Privilege;
use lodge_api::vm::VsockParams;

use super::carry::{Kind, attach};
use super::socket::no_upgrade;
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get};
use crate::wire::query::Query;
use crate::wire::reply::Answer;

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::VmConsole);
    vec![
        get("/v1/vms/{vm}/vsock", access, "vm_connect", vm_connect)
            .summary("A connection to a vsock port of a running guest, as a WebSocket")
            .description(
                "For what listens in the guest on `AF_VSOCK`; no network is needed. Binary messages carry bytes both \
                 ways; an empty one ends the direction into the guest. Closed with 1000 when the guest has closed the \
                 connection, 1001 when the server stops, 1008 when the session has ended. 409 `connection_refused` \
                 when nobody listens, 504 when the guest does not answer.",
            )
            .query::<VsockParams>()
            .answers_other(101, "The WebSocket.", None),
    ]
}

async fn vm_connect(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Query(params): Query<VsockParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|rejection| no_upgrade(&rejection))?;
    let manager = app.manager();
    let connection = manager.vm_connect(&who.caller, &key, params).await?;
    Ok(attach(app, who, upgrade, connection, Kind::Connection))
}
