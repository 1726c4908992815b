//! Operations.

use axum::extract::{Path, State};
use lodge_api::Problem;
use lodge_api::operation::{Operation, WaitParams};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get};
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};
use crate::wire::wait::Wait;

const LIST: &str = "/v1/operations";
const ONE: &str = "/v1/operations/{operation}";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::OperationRead);
    let control = Access::Needs(Privilege::OperationControl);
    vec![
        get(LIST, read, "operation_list", operation_list)
            .summary("List operations, newest first")
            .query::<ListParams>()
            .answers_page::<Operation>(),
        get(ONE, read, "operation_view", operation_view)
            .summary("Show an operation, or wait for its end")
            .description("A failed operation is shown with 200 here; its `error` says why.")
            .query::<WaitParams>()
            .answers::<Operation>(200, "The operation."),
        delete(ONE, control, "operation_cancel", operation_cancel)
            .summary("Cancel an operation that runs")
            .answers::<Operation>(200, "What became of it."),
    ]
}

async fn operation_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().operation_list(&params)?)
}

async fn operation_view(
    State(app): State<App>,
    Path(key): Path<String>,
    Wait(wait): Wait,
) -> Answer {
    let id = id(&key)?;
    let operation = match wait {
        Some(wait) => app.wait_for(id, wait).await?,
        None => app.manager().operation_view(id)?,
    };
    reply::value(&operation)
}

async fn operation_cancel(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
) -> Answer {
    let id = id(&key)?;
    reply::value(&app.manager().operation_cancel(&who.caller, id).await?)
}

fn id(key: &str) -> Result<Uuid, Problem> {
    key.parse().map_err(|_| {
        let shown: String = key.chars().take(80).collect();
        Problem::not_found("operation", shown.escape_debug())
    })
}
