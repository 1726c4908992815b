//! Guests out of OVA archives, and into them.

use axum::body::Body;
use axum::extract::{Path, State};
use http::HeaderMap;
use lodge_api::privilege::Privilege;
use lodge_api::vm::{VmFetch, VmImport, VmImported};

use super::content::upload_of;
use super::download::{BINARY, answer, binary};
use super::fetch::{FETCHES, fetch_of};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get, post};
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
        get("/v1/vms/{vm}/ova", Access::Needs(Privilege::StorageRead), "vm_export", vm_export)
            .summary("Download a stopped guest as an OVA")
            .description(
                "Descriptor, manifest with checksums, and disks as streamOptimized VMDKs. For other hypervisors' sake disks on virtio are \
                 said to be on SATA, and all network cards to be Intel's (e1000e). Everything is read twice, first to be measured; the operation tells how far \
                 that is. An answer that breaks off is not complete.",
            )
            .answers_other(200, "The archive.", Some((BINARY, binary()))),
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

async fn vm_export(State(app): State<App>, Path(key): Path<String>, who: Authenticated) -> Answer {
    let download = app.manager().vm_export(&who.caller, &key).await?;
    Ok(answer(download))
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
        datastore: body.datastore,
        sha256: body.sha256,
    };
    let manager = app.manager();
    let operation = manager.vm_fetch(&who.caller, import, fetch).await?;
    reply::started(&app, wait, operation).await
}
