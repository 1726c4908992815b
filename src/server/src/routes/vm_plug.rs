//! Disks and network interfaces that come and go while a guest runs.

use axum::extract::{Path, State};
use lodge_api::privilege::Privilege;
use lodge_api::vm::{Vm, VmAttach, VmDetach};

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, post};
use crate::wire::json::Json;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::VmConfigure);
    vec![
        post("/v1/vms/{vm}:attach", access, "vm_attach", vm_attach)
            .summary("Add a disk or a network interface to a guest, at once if it runs")
            .description(
                "Give either `disk` or `nic`. Only virtio devices come to a guest that runs; the guest finds them by itself \
                 (ACPI hot plug). The device is added to the guest's configuration as its last.",
            )
            .takes::<VmAttach>()
            .answers_object::<Vm>(200, "It is there."),
        post("/v1/vms/{vm}:detach", access, "vm_detach", vm_detach)
            .summary("Remove a disk or a network interface from a guest, also while it runs")
            .description(
                "Give either `disk` or `nic`. A guest that runs is asked to let the device go, as a virtio device only can be, and \
                 the operation ends when it has; otherwise it fails with `guest_timeout` and the guest keeps the device. With `force` it \
                 is taken out at once. A disk stays, with all data on it.",
            )
            .takes::<VmDetach>()
            .starts_operation("The guest is asked."),
    ]
}

async fn vm_attach(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Json(attach): Json<VmAttach>,
) -> Answer {
    let vm = app.manager().vm_attach(&who.caller, &key, attach).await?;
    reply::object(&vm, vm.revision)
}

async fn vm_detach(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    wait: Wait,
    Json(detach): Json<VmDetach>,
) -> Answer {
    let operation = app.manager().vm_detach(&who.caller, &key, detach).await?;
    reply::started(&app, wait, operation).await
}
