//! A guest's screen, keyboard and mouse over a WebSocket, for VNC viewers.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use lodge_api::privilege::Privilege;

use super::carry::{Kind, attach};
use super::socket::no_upgrade;
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get};
use crate::wire::reply::Answer;

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::VmConsole);
    vec![
        get("/v1/vms/{vm}/vnc", access, "vm_vnc", vm_vnc)
            .summary("A running guest's screen, keyboard and mouse by RFB (VNC), as a WebSocket")
            .description(
                "Binary messages carry RFB (RFC 6143, versions 3.3 to 3.8, security type None) both ways, as noVNC and \
                 websockify do; the subprotocol is `binary`. Guests that start by firmware have a screen. Closed with 1000 \
                 when the guest has ended or another viewer wanted to be alone, 1001 when the server stops, 1008 when the \
                 session has ended. Browsers send their token as the subprotocol `bearer.TOKEN` beside `binary`.",
            )
            .answers_other(101, "The WebSocket.", None),
    ]
}

async fn vm_vnc(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|rejection| no_upgrade(&rejection))?;
    let viewer = app.manager().vm_vnc(&who.caller, &key).await?;
    Ok(attach(app, who, upgrade, viewer, Kind::Screen))
}
