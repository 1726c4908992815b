//! UEFI variables of guests that do not run.

use axum::extract::{Path, State};
use lodge_api::nvram::{VmVariable, VmVariableInfo, VmVariableSet};
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, put};
use crate::wire::json::Json;
use crate::wire::reply::{self, Answer};

const ALL: &str = "/v1/vms/{vm}/nvram";
const ONE: &str = "/v1/vms/{vm}/nvram/{variable}";

/// The largest variable in hexadecimal, and what is around it.
const BODY: usize = VmVariableSet::MOST * 2 + (4 << 10);

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::VmRead);
    let write = Access::Needs(Privilege::VmConfigure);
    vec![
        get(ALL, read, "variable_list", variable_list)
            .summary("List the UEFI variables of a guest that does not run")
            .description("All of them, on one page. Of a guest that never ran: those that it begins with.")
            .answers_page::<VmVariableInfo>(),
        delete(ALL, write, "variable_reset", variable_reset)
            .summary("Forget the UEFI variables of a guest that does not run")
            .description("It begins with fresh ones when it is started.")
            .deletes(),
        get(ONE, read, "variable_view", variable_view)
            .summary("Show a UEFI variable of a guest that does not run")
            .description(
                "`variable` is its name and GUID, like `BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c`.",
            )
            .answers::<VmVariable>(200, "The variable."),
        put(ONE, write, "variable_set", variable_set)
            .summary("Make or change a UEFI variable of a guest that does not run")
            .description(
                "Firmware is not asked: authenticated variables, like the keys of Secure Boot, are changed like all others.",
            )
            .body_limit(BODY)
            .takes::<VmVariableSet>()
            .answers::<VmVariable>(200, "The variable as it is now."),
        delete(ONE, write, "variable_delete", variable_delete)
            .summary("Delete a UEFI variable of a guest that does not run")
            .deletes(),
    ]
}

async fn variable_list(State(app): State<App>, Path(key): Path<String>) -> Answer {
    reply::value(&app.manager().variable_list(&key).await?)
}

async fn variable_reset(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
) -> Answer {
    app.manager().variable_reset(&who.caller, &key).await?;
    reply::nothing()
}

async fn variable_view(
    State(app): State<App>,
    Path((key, variable)): Path<(String, String)>,
) -> Answer {
    reply::value(&app.manager().variable_view(&key, &variable).await?)
}

async fn variable_set(
    State(app): State<App>,
    Path((key, variable)): Path<(String, String)>,
    who: Authenticated,
    Json(set): Json<VmVariableSet>,
) -> Answer {
    let manager = app.manager();
    let now = manager
        .variable_set(&who.caller, &key, &variable, set)
        .await?;
    reply::value(&now)
}

async fn variable_delete(
    State(app): State<App>,
    Path((key, variable)): Path<(String, String)>,
    who: Authenticated,
) -> Answer {
    app.manager()
        .variable_delete(&who.caller, &key, &variable)
        .await?;
    reply::nothing()
}
