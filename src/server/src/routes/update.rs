//! Other versions of Lodge on the host's disk.

use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use lodge_api::privilege::Privilege;
use lodge_api::update::{HostImage, UpdateFetch, UpdateParams, Updated};

use super::content::upload_of;
use super::download::{BINARY, binary};
use super::fetch::{FETCHES, fetch_of};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get, post};
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::SystemRead);
    let configure = Access::Needs(Privilege::SystemConfigure);
    vec![
        get("/v1/system/images", read, "system_images", system_images)
            .summary("List the two images on the host's disk, and which of them starts")
            .answers_page::<HostImage>(),
        post("/v1/system:update", configure, "system_update", system_update)
            .summary("Update Lodge")
            .description(
                "The body is a signed ISO. Its signature has to be by one of `update_keys` of the system. It becomes the image that does \
                 not run, is read back and compared with its checksums, and is tried at the next start: when the host does not come up with it, the one that \
                 runs now is started again.",
            )
            .query::<UpdateParams>()
            .takes_other(&[BINARY], binary())
            .answers::<Updated>(200, "The image is tried next."),
        post("/v1/system:fetch_update", configure, "update_fetch", update_fetch)
            .summary("Update Lodge with what is at a URL")
            .description(FETCHES)
            .takes::<UpdateFetch>()
            .starts_operation("Under way; when it has ended, the image is tried next."),
        post("/v1/system:rollback", configure, "system_rollback", system_rollback)
            .summary("Go back to the other image, or forget an update that was not tried yet")
            .query::<UpdateParams>()
            .answers::<Updated>(200, "What starts next."),
    ]
}

async fn system_images(State(app): State<App>) -> Answer {
    reply::value(&app.manager().host_images().await?)
}

async fn system_update(
    State(app): State<App>,
    who: Authenticated,
    Query(params): Query<UpdateParams>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (length, content) = upload_of(&headers, body)?;
    let manager = app.manager();
    let result = manager
        .system_update(&who.caller, params, length, content.pieces)
        .await;
    reply::value(&content.stalled.explain(&app, result)?)
}

async fn update_fetch(
    State(app): State<App>,
    who: Authenticated,
    wait: Wait,
    Json(body): Json<UpdateFetch>,
) -> Answer {
    let fetch = fetch_of(&app, &body.url)?;
    let params = UpdateParams {
        restart: body.restart,
        guests: body.guests,
    };
    let manager = app.manager();
    let operation = manager
        .system_update_fetch(&who.caller, params, fetch)
        .await?;
    reply::started(&app, wait, operation).await
}

async fn system_rollback(
    State(app): State<App>,
    who: Authenticated,
    Query(params): Query<UpdateParams>,
) -> Answer {
    let updated = app.manager().system_rollback(&who.caller, params).await?;
    reply::value(&updated)
}
