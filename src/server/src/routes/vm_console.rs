//! A guest's console over a WebSocket.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use lodge_api::privilege::Privilege;
use lodge_api::vm::ConsoleParams;

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
        get("/v1/vms/{vm}/console", access, "vm_console", vm_console)
            .summary("A running guest's console, as a WebSocket")
            .description(
                "Binary messages carry bytes both ways; text is taken as bytes too. Closed with \
                 1000 when the guest ends, 1001 when the server stops, 1008 when the session has \
                 ended. A client that reads too slowly misses output; it never holds the guest up. \
                 Browsers send their token as the subprotocol `bearer.TOKEN` beside `lodge`.",
            )
            .query::<ConsoleParams>()
            .answers_other(101, "The WebSocket.", None),
    ]
}

async fn vm_console(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Query(params): Query<ConsoleParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|rejection| no_upgrade(&rejection))?;
    let manager = app.manager();
    let console = manager.vm_console(&who.caller, &key, params).await?;
    Ok(attach(app, who, upgrade, console, Kind::Console))
}
