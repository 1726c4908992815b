//! Tokens: long-lived credentials of programs.

use axum::extract::{Path, State};
use lodge_api::auth::{Token, TokenCreate, TokenCreated};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};

const LIST: &str = "/v1/tokens";

pub fn routes() -> Vec<Route> {
    let own = Access::Needs(Privilege::SelfManage);
    vec![
        get(LIST, own, "token_list", token_list)
            .summary("List one's own tokens; an administrator sees everybody's")
            .query::<ListParams>()
            .answers_page::<Token>(),
        post(LIST, own, "token_create", token_create)
            .summary("Create a token")
            .description("The secret is in this answer and nowhere else.")
            .takes::<TokenCreate>()
            .answers::<TokenCreated>(201, "Created.")
            .header("Location", "The token."),
        delete("/v1/tokens/{token}", own, "token_delete", token_delete)
            .summary("Delete a token; others' only as an administrator")
            .deletes(),
    ]
}

async fn token_list(
    State(app): State<App>,
    who: Authenticated,
    Query(params): Query<ListParams>,
) -> Answer {
    reply::value(&app.manager().token_list(&who.caller, &params)?)
}

async fn token_create(
    State(app): State<App>,
    who: Authenticated,
    Json(body): Json<TokenCreate>,
) -> Answer {
    let created = app.manager().token_create(&who.caller, body).await?;
    let path = format!("{LIST}/{}", created.token.id);
    reply::created(&path, &created, None)
}

async fn token_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
) -> Answer {
    app.manager().token_delete(&who.caller, &key).await?;
    reply::nothing()
}
