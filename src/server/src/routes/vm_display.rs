//! A guest's screen, keyboard and pointer.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use lodge_api::keyboard::VmKeys;
use lodge_api::pointer::VmPointer;
use lodge_api::privilege::Privilege;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get, post};
use crate::wire::json::Json;
use crate::wire::reply::{self, Answer};

const PNG: &str = "image/png";

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::VmConsole);
    let picture = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
    vec![
        get(
            "/v1/vms/{vm}/screenshot",
            access,
            "vm_screenshot",
            vm_screenshot,
        )
        .summary("What is on a running guest's screen")
        .description(
            "Guests that start by firmware have a screen; a guest that starts from a kernel has none. 409 as long as \
             no system in the guest has set it up, which firmware does within seconds.",
        )
        .answers_other(200, "The picture.", Some((PNG, picture.into()))),
        post("/v1/vms/{vm}:type", access, "vm_type", vm_type)
            .summary("Type on a running guest's keyboard")
            .description(
                "Guests that start by firmware have a keyboard. Answers when the guest has taken all of it, as fast \
                 as the guest reads; 409 when it takes nothing for five seconds.",
            )
            .takes::<VmKeys>()
            .answers_other(204, "Typed.", None),
        post("/v1/vms/{vm}:pointer", access, "vm_point", vm_point)
            .summary("Move a running guest's pointer, and click")
            .description(
                "Guests that start by firmware have a tablet, whose pointer goes where it is told. 409 as long as no \
                 system in the guest has a driver for it (virtio input) and shows something; 400 outside of the screen.",
            )
            .takes::<VmPointer>()
            .answers_other(204, "Told.", None),
    ]
}

async fn vm_screenshot(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
) -> Answer {
    let png = app.manager().vm_screenshot(&who.caller, &key).await?;
    Ok(reply::with(png.into_response(), CONTENT_TYPE, PNG))
}

async fn vm_point(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Json(pointer): Json<VmPointer>,
) -> Answer {
    app.manager().vm_point(&who.caller, &key, &pointer).await?;
    reply::nothing()
}

async fn vm_type(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Json(keys): Json<VmKeys>,
) -> Answer {
    app.manager().vm_type(&who.caller, &key, &keys).await?;
    reply::nothing()
}
