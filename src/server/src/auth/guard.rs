//! The gate before every handler.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use lodge_api::{ErrorCode, Problem};
use lodge_manager::{Caller, Credential, Identity};

use super::credentials::credential;
use crate::app::App;
use crate::route::Access;
use crate::wire::failure::Failure;
use crate::wire::json::BodyLimit;

/// Address of the peer of a request's connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Who makes a request. Handlers of methods that need a privilege find it here.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// Whose credential it carried.
    pub identity: Identity,
    /// The same for the manager.
    pub caller: Caller,
    /// The credential, to see later whether it still holds.
    pub secret: String,
}

/// What a route asks of a request before its handler sees it.
#[derive(Clone)]
pub struct Guard {
    /// Whom credentials are shown to.
    pub app: App,
    /// What the method needs.
    pub access: Access,
    /// Names of the query parameters it takes.
    pub parameters: Arc<[String]>,
    /// Most bytes of a JSON body.
    pub body_limit: BodyLimit,
}

/// Whose credential a request carries; `None` without one.
///
/// # Errors
/// `Unauthorized` for one that does not hold.
pub fn authenticated(app: &App, parts: &Parts) -> Result<Option<Authenticated>, Problem> {
    let Some(secret) = credential(parts)? else {
        return Ok(None);
    };
    let identity = app.manager().authenticate(&secret).ok_or_else(|| {
        Problem::new(
            ErrorCode::Unauthorized,
            "the credentials are unknown or have expired",
        )
        .with_hint("log in again with POST /v1/sessions")
    })?;
    let address = match parts.extensions.get::<Peer>() {
        Some(Peer(ip)) => ip.to_string(),
        None => "unknown".to_owned(),
    };
    Ok(Some(Authenticated {
        caller: identity.caller(address),
        identity,
        secret,
    }))
}

/// Middleware: lets a request through to its handler, or answers 401 or 403.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(guard.body_limit);
    let user = match guard.access {
        Access::Public => None,
        Access::Needs(_) => match admit(&guard, &parts) {
            Ok(authenticated) => {
                let caller = authenticated.caller.clone();
                parts.extensions.insert(authenticated);
                Some(caller)
            }
            Err(problem) => return Failure::from(problem).into_response(),
        },
    };
    if let Err(problem) = known_parameters(&guard, &parts) {
        return Failure::from(problem).into_response();
    }
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(caller) = user {
        response.extensions_mut().insert(caller);
    }
    response
}

/// A parameter with a slip in its name would otherwise be one that was never given.
fn known_parameters(guard: &Guard, parts: &Parts) -> Result<(), Problem> {
    let query = parts.uri.query().unwrap_or_default();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        if !guard.parameters.iter().any(|known| *known == name) {
            let known = match guard.parameters.join(", ") {
                none if none.is_empty() => "none".to_owned(),
                some => some,
            };
            return Err(Problem::invalid(
                format!("?{name}"),
                "this method does not take that query parameter",
            )
            .with_hint(format!("it takes: {known}")));
        }
    }
    Ok(())
}

fn admit(guard: &Guard, parts: &Parts) -> Result<Authenticated, Problem> {
    let Access::Needs(privilege) = guard.access else {
        return Err(Problem::new(
            ErrorCode::Internal,
            "a public method asked for a user",
        ));
    };
    let authenticated = authenticated(&guard.app, parts)?.ok_or_else(|| {
        Problem::new(ErrorCode::Unauthorized, "this method needs a login")
            .with_hint("send Authorization: Bearer TOKEN; POST /v1/sessions gives one")
    })?;
    // The local console's token lies in a file; what it must not do it cannot be talked into.
    let local = authenticated.identity.credential == Credential::Local;
    if !authenticated.identity.role.grants(privilege) || (local && !parts.method.is_safe()) {
        return Err(Problem::new(
            ErrorCode::Forbidden,
            format!(
                "this method needs the privilege {}, which {} does not have",
                privilege.as_str(),
                authenticated.identity.user
            ),
        ));
    }
    Ok(authenticated)
}

impl<S: Sync> FromRequestParts<S> for Authenticated {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(|| {
            Failure::new(
                ErrorCode::Internal,
                "a method without privilege asked who calls",
            )
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts
            .extensions
            .get()
            .copied()
            .ok_or_else(|| Failure::new(ErrorCode::Internal, "a request without a peer"))
    }
}
