//! Users.

use axum::extract::{Path, State};
use lodge_api::auth::{User, UserCreate, UserPatch};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, patch, post};
use crate::wire::conditions::{Expected, Known};
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};

const LIST: &str = "/v1/users";
const ONE: &str = "/v1/users/{user}";

pub fn routes() -> Vec<Route> {
    let manage = Access::Needs(Privilege::UserManage);
    let own = Access::Needs(Privilege::SelfManage);
    vec![
        get(LIST, manage, "user_list", user_list)
            .summary("List users")
            .query::<ListParams>()
            .answers_page::<User>(),
        post(LIST, manage, "user_create", user_create)
            .summary("Create a user")
            .takes::<UserCreate>()
            .creates::<User>("The user."),
        get(ONE, manage, "user_view", user_view)
            .summary("Show a user")
            .answers_object::<User>(200, "The user."),
        patch(ONE, own, "user_update", user_update)
            .summary("Change a user")
            .description("Whoever is no administrator may change the own password only.")
            .takes::<UserPatch>()
            .if_match()
            .answers_object::<User>(200, "Changed."),
        delete(ONE, manage, "user_delete", user_delete)
            .summary("Delete a user")
            .description("Its sessions and tokens end. The last enabled administrator stays.")
            .if_match()
            .deletes(),
    ]
}

async fn user_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().user_list(&params)?)
}

async fn user_create(
    State(app): State<App>,
    who: Authenticated,
    Json(body): Json<UserCreate>,
) -> Answer {
    let user = app.manager().user_create(&who.caller, body).await?;
    let path = format!("{LIST}/{}", user.name);
    reply::created(&path, &user, Some(user.revision))
}

async fn user_view(State(app): State<App>, Path(key): Path<String>, known: Known) -> Answer {
    let user = app.manager().user_view(&key)?;
    reply::view(&known, &user, user.revision)
}

async fn user_update(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
    Json(body): Json<UserPatch>,
) -> Answer {
    let manager = app.manager();
    let user = manager
        .user_patch(&who.caller, &key, body, revision)
        .await?;
    reply::object(&user, user.revision)
}

async fn user_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Expected(revision): Expected,
) -> Answer {
    app.manager()
        .user_delete(&who.caller, &key, revision)
        .await?;
    reply::nothing()
}
