//! Certificate authorities that the host trusts beside the public ones, when it fetches content.

use axum::extract::{Path, State};
use lodge_api::Problem;
use lodge_api::authority::{Authority, AuthorityCreate};
use lodge_api::page::ListParams;
use lodge_api::privilege::Privilege;
use lodge_manager::Certificate;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, delete, get, post};
use crate::wire::json::Json;
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};

const LIST: &str = "/v1/authorities";

pub fn routes() -> Vec<Route> {
    let read = Access::Needs(Privilege::SystemRead);
    let configure = Access::Needs(Privilege::SystemConfigure);
    vec![
        get(LIST, read, "authority_list", authority_list)
            .summary("List the certificate authorities that are trusted beside the public ones, for content at `https` URLs")
            .query::<ListParams>()
            .answers_page::<Authority>(),
        post(LIST, configure, "authority_create", authority_create)
            .summary("Trust a certificate authority")
            .takes::<AuthorityCreate>()
            .answers::<Authority>(201, "Trusted from now on.")
            .header("Location", "The authority."),
        delete("/v1/authorities/{authority}", configure, "authority_delete", authority_delete)
            .summary("Trust a certificate authority no longer")
            .deletes(),
    ]
}

async fn authority_list(State(app): State<App>, Query(params): Query<ListParams>) -> Answer {
    reply::value(&app.manager().authority_list(&params)?)
}

async fn authority_create(
    State(app): State<App>,
    who: Authenticated,
    Json(body): Json<AuthorityCreate>,
) -> Answer {
    let certificate = lodge_client::Authority::from_pem(&body.certificate)
        .map_err(|problem| Problem::invalid("/certificate", problem))?;
    let certificate = Certificate {
        fingerprint: certificate.fingerprint().to_string(),
        pem: body.certificate,
    };
    let manager = app.manager();
    let created = manager
        .authority_create(&who.caller, body.name, certificate)
        .await?;
    let path = format!("{LIST}/{}", created.name);
    reply::created(&path, &created, None)
}

async fn authority_delete(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
) -> Answer {
    app.manager().authority_delete(&who.caller, &key).await?;
    reply::nothing()
}
