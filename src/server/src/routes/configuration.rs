//! The host's configuration as a whole.

use axum::extract::State;
use lodge_api::configuration::{
    Configuration, ConfigurationRestore, ConfigurationRestored, MAX_BODY,
};
use lodge_api::privilege::Privilege;

use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get, post};
use crate::wire::json::Json;
use crate::wire::reply::{self, Answer};

pub fn routes() -> Vec<Route> {
    let configure = Access::Needs(Privilege::SystemConfigure);
    vec![
        get(
            "/v1/system/configuration",
            configure,
            "configuration_view",
            configuration_view,
        )
        .summary("The host's configuration as a whole, to be kept elsewhere")
        .description(
            "Users, tokens, certificate authorities, keys for updates, networks and guests. It holds hashes of passwords and of \
             secrets, so keep it as you would a password. The content of images, disks and snapshots is not in it.",
        )
        .answers::<Configuration>(200, "The configuration."),
        post(
            "/v1/system/configuration:restore",
            configure,
            "configuration_restore",
            configuration_restore,
        )
        .summary("Bring a configuration to this host, or say what would become different")
        .description(
            "All of it or nothing. Objects are matched by their names: one that is here keeps its id, and what is only here stays. \
             Guests are not started; what they need that is not on this host is in `warnings`.",
        )
        .body_limit(MAX_BODY)
        .takes::<ConfigurationRestore>()
        .answers::<ConfigurationRestored>(200, "What is different now, or would be."),
    ]
}

async fn configuration_view(State(app): State<App>, who: Authenticated) -> Answer {
    reply::value(&app.manager().configuration_view(&who.caller)?)
}

async fn configuration_restore(
    State(app): State<App>,
    who: Authenticated,
    Json(body): Json<ConfigurationRestore>,
) -> Answer {
    let manager = app.manager();
    let restored = manager
        .configuration_restore(&who.caller, body, fingerprint)
        .await?;
    reply::value(&restored)
}

/// The fingerprint of an authority's certificate.
fn fingerprint(pem: &str) -> Result<String, String> {
    let certificate =
        lodge_client::Authority::from_pem(pem).map_err(|problem| problem.to_string())?;
    Ok(certificate.fingerprint().to_string())
}
