//! How much of its memory a running guest keeps.

use axum::extract::{Path, State};
use lodge_api::privilege::Privilege;
use lodge_api::vm::{Vm, VmBalloonTarget};

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, post};
use crate::wire::json::Json;
use crate::wire::reply::{self, Answer};

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::VmConfigure);
    vec![
        post("/v1/vms/{vm}:balloon", access, "vm_balloon", vm_balloon)
            .summary("Ask a running guest to keep only so much of its memory")
            .description(
                "The guest gives the rest back to the host by its balloon driver (virtio-balloon), as fast as it \
                 can, and takes it back when `target` is raised; `status.balloon` tells how far it is. A guest \
                 that runs out of memory may keep more. The target holds over resets, but is not remembered: \
                 when the guest is started again, it has all of its memory.",
            )
            .takes::<VmBalloonTarget>()
            .answers_object::<Vm>(200, "The guest is asked."),
    ]
}

async fn vm_balloon(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Json(target): Json<VmBalloonTarget>,
) -> Answer {
    let vm = app.manager().vm_balloon(&who.caller, &key, target).await?;
    reply::object(&vm, vm.revision)
}
