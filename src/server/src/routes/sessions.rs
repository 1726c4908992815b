//! Logging in and out.

use axum::extract::State;
use http::header::SET_COOKIE;
use lodge_api::auth::{LoginRequest, Session, SessionInfo};
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::{Authenticated, Peer, clear_cookie, session_cookie};
use crate::route::{Access, Route, delete, get, post};
use crate::wire::json::Json;
use crate::wire::reply::{self, Answer};

const CURRENT: &str = "/v1/sessions/current";

pub fn routes() -> Vec<Route> {
    let own = Access::Needs(Privilege::SelfManage);
    vec![
        post("/v1/sessions", Access::Public, "session_create", session_create)
            .summary("Log in")
            .description(
                "Wrong passwords are slowed down by user and by address: 429 with `Retry-After`. \
                 The session's token is also set as the cookie `__Host-lodge`; requests that change \
                 something by cookie must carry `X-Lodge-Request: 1` or this host's own `Origin`.",
            )
            .takes::<LoginRequest>()
            .body_limit(4 << 10)
            .answers::<Session>(201, "Logged in.")
            .header("Location", "The session.")
            .header("Set-Cookie", "The session's cookie."),
        get(CURRENT, own, "session_view", session_view)
            .summary("Who the server takes the caller for")
            .answers::<SessionInfo>(200, "User, role and privileges."),
        delete(CURRENT, own, "session_delete", session_delete)
            .summary("Log out")
            .description("Ends the session the request was made with. A token stays.")
            .answers_other(204, "Logged out.", None),
    ]
}

async fn session_create(
    State(app): State<App>,
    Peer(peer): Peer,
    Json(login): Json<LoginRequest>,
) -> Answer {
    let session = app.manager().login(login, peer).await?;
    let response = reply::created(CURRENT, &session, None)?;
    Ok(reply::with(
        response,
        SET_COOKIE,
        &session_cookie(&session.token),
    ))
}

async fn session_view(who: Authenticated) -> Answer {
    let role = who.identity.role;
    reply::value(&SessionInfo {
        user: who.identity.user,
        role,
        privileges: Privilege::ALL
            .into_iter()
            .filter(|p| role.grants(*p))
            .collect(),
    })
}

async fn session_delete(State(app): State<App>, who: Authenticated) -> Answer {
    app.manager().logout(&who.identity).await?;
    Ok(reply::with(reply::nothing()?, SET_COOKIE, &clear_cookie()))
}
