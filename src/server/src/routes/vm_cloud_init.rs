//! What cloud-init of guests is given.

use axum::extract::{Path, State};
use lodge_api::privilege::Privilege;
use lodge_api::vm::CloudInitFiles;

use crate::app::App;
use crate::route::{Access, Route, get};
use crate::wire::reply::{self, Answer};

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::VmRead);
    vec![
        get("/v1/vms/{vm}/cloud-init", read, "vm_cloudinit", view)
            .summary("Show what a guest's cloud-init would be given")
            .description(
                "The files on the disc of a guest with `cloud_init`, as they would be if it was started now.",
            )
            .answers::<CloudInitFiles>(200, "The files."),
    ]
}

async fn view(State(app): State<App>, Path(key): Path<String>) -> Answer {
    reply::value(&app.manager().vm_cloud_init(&key)?)
}
