//! The host: condition, log and power.

use axum::extract::State;
use lodge_api::log::{LogEntry, LogParams};
use lodge_api::privilege::Privilege;
use lodge_api::system::{System, SystemAction, SystemPatch};

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get, patch, post};
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::SystemRead);
    let configure = Access::Needs(Privilege::SystemConfigure);
    let power = Access::Needs(Privilege::SystemPower);
    vec![
        get("/v1/system", read, "system_view", system_view)
            .summary("Show the host: hardware, KVM, storage, links, versions, warnings")
            .answers::<System>(200, "The host."),
        patch("/v1/system", configure, "system_change", system_change)
            .summary("Change the host's settings")
            .takes::<SystemPatch>()
            .answers::<System>(200, "Changed."),
        get("/v1/system/log", read, "system_log", system_log)
            .summary("The newest lines of the host's log, oldest first")
            .query::<LogParams>()
            .answers_page::<LogEntry>(),
        post(
            "/v1/system:shutdown",
            power,
            "system_shutdown",
            system_shutdown,
        )
        .summary("Power guests off, then the host")
        .starts_operation("Under way."),
        post("/v1/system:reboot", power, "system_reboot", system_reboot)
            .summary("Power guests off, then restart the host")
            .starts_operation("Under way."),
    ]
}

async fn system_view(State(app): State<App>) -> Answer {
    show(&app, app.manager().system())
}

async fn system_change(
    State(app): State<App>,
    who: Authenticated,
    Json(body): Json<SystemPatch>,
) -> Answer {
    show(&app, app.manager().system_patch(&who.caller, body).await?)
}

fn show(app: &App, mut system: System) -> Answer {
    system.warnings.splice(..0, app.warnings().iter().cloned());
    reply::value(&system)
}

async fn system_log(State(app): State<App>, Query(params): Query<LogParams>) -> Answer {
    reply::value(&app.manager().log(&params)?)
}

async fn system_shutdown(State(app): State<App>, who: Authenticated, wait: Wait) -> Answer {
    power(&app, &who, SystemAction::Shutdown, wait).await
}

async fn system_reboot(State(app): State<App>, who: Authenticated, wait: Wait) -> Answer {
    power(&app, &who, SystemAction::Reboot, wait).await
}

async fn power(app: &App, who: &Authenticated, action: SystemAction, wait: Wait) -> Answer {
    let operation = app.manager().system_action(&who.caller, action).await?;
    reply::started(app, wait, operation).await
}
