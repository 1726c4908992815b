//! Guests out of OVA archives.

use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use lodge_api::privilege::Privilege;
use lodge_api::vm::{VmFetch, VmImport, VmImported};

use super::content::upload_of;
use super::download::{BINARY, binary};
use super::fetch::{FETCHES, fetch_of};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, post};
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::VmConfigure);
    vec![
        post("/v1/vms:import", access, "vm_import", vm_import)
            .summary("Make a guest of an OVA")
            .description(
                "The body is the archive. Its manifest is checked, its disks are made raw, and its processors, memory, firmware, \
                 disks, drives and network cards become those of a stopped guest. `warnings` says what is different. Meanwhile \
                 the operation tells how far it is. Whatever goes wrong leaves nothing behind.",
            )
            .query::<VmImport>()
            .takes_other(&[BINARY], binary())
            .creates::<VmImported>("The guest."),
        post("/v1/vms:fetch", access, "vm_fetch", vm_fetch)
            .summary("Make a guest of an OVA at a URL")
            .description(FETCHES)
            .takes::<VmFetch>()
            .starts_operation("Under way; the operation's `target` is the guest, and its log says what is different."),
    ]
}

async fn vm_import(
    State(app): State<App>,
    who: Authenticated,
    Query(import): Query<VmImport>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (length, content) = upload_of(&headers, body)?;
    let manager = app.manager();
    let result = manager
        .vm_import(&who.caller, import, length, content.pieces)
        .await;
    let imported = content.stalled.explain(&app, result)?;
    let path = format!("/v1/vms/{}", imported.vm.spec.name);
    reply::created(&path, &imported, Some(imported.vm.revision))
}

async fn vm_fetch(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<VmFetch>,
) -> Answer {
    let fetch = fetch_of(&app, &body.url)?;
    let import = VmImport {
        name: body.name,
        network: body.network,
        sha256: body.sha256,
    };
    let manager = app.manager();
    let operation = manager.vm_fetch(&who.caller, import, fetch).await?;
    reply::started(&app, wait, operation).await
}
