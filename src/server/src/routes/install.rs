//! Lodge on a disk of the host.

use axum::extract::State;
use lodge_api::install::{HostDisk, Install};
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get, post};
use crate::wire::json::Json;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::SystemRead);
    let configure = Access::Needs(Privilege::SystemConfigure);
    vec![
        get("/v1/system/disks", read, "system_disks", system_disks)
            .summary("List the disks of the host, with what is on them and whether they are in use")
            .answers_page::<HostDisk>(),
        post(
            "/v1/system:install",
            configure,
            "system_install",
            system_install,
        )
        .summary("Install Lodge on a disk of the host")
        .description(
            "Writes a boot loader for BIOS and UEFI and the image that the host was started from. Where the host's data are in \
             memory the disk gets them, too, and the host goes on with them there: guests must be off, nothing can be changed \
             until the operation ends, and the manager is started anew at the end. The boot medium can be pulled out then.",
        )
        .takes::<Install>()
        .starts_operation("Under way."),
    ]
}

async fn system_disks(State(app): State<App>) -> Answer {
    reply::value(&app.manager().host_disks().await?)
}

async fn system_install(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<Install>,
) -> Answer {
    let operation = app.manager().system_install(&who.caller, body).await?;
    reply::started(&app, wait, operation).await
}
