//! What handlers share, and what happens to every request.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request};
use lodge_api::operation::Operation;
use lodge_api::{ErrorCode, Problem};
use lodge_client::Fetcher;
use lodge_manager::{Caller, Manager};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::auth::Peer;
use crate::limits::Limits;
use crate::openapi;
use crate::route::{Route, router};
use crate::routes;
use crate::wire::failure::Failure;
use crate::wire::path::for_router;

/// What handlers share. Clones are the same.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    manager: Manager,
    limits: Limits,
    stop: CancellationToken,
    document: Bytes,
    warnings: Vec<String>,
    fetcher: Arc<Fetcher>,
}

/// Answers requests.
#[derive(Clone)]
pub struct Server {
    router: Router,
}

impl App {
    /// The manager.
    pub fn manager(&self) -> &Manager {
        &self.inner.manager
    }

    /// Bounds on requests.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Cancelled when the server stops: long answers end then.
    pub fn stop(&self) -> &CancellationToken {
        &self.inner.stop
    }

    /// The OpenAPI document. All answers share it: anybody may ask for it, and need not take it.
    pub fn document(&self) -> Bytes {
        self.inner.document.clone()
    }

    /// Warnings of the server itself, beside the manager's.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Gets files from the web.
    pub fn fetcher(&self) -> Arc<Fetcher> {
        Arc::clone(&self.inner.fetcher)
    }

    /// An operation when it has ended, or as it is after `wait` or when the server stops.
    pub async fn wait_for(&self, id: Uuid, wait: Duration) -> Result<Operation, Problem> {
        tokio::select! {
            operation = self.manager().operation_wait(id, wait) => operation,
            () = self.stop().cancelled() => self.manager().operation_view(id),
        }
    }
}

impl Server {
    /// A server for `manager`. Long answers end when `stop` is cancelled; `warnings` are shown
    /// before the manager's.
    ///
    /// # Errors
    /// When the OpenAPI document cannot be written as JSON.
    pub fn new(
        manager: Manager,
        limits: Limits,
        stop: CancellationToken,
        warnings: &[String],
    ) -> Result<Self, serde_json::Error> {
        Self::with_table(routes::table(), manager, limits, stop, warnings)
    }

    /// A server with the methods of `table`.
    pub fn with_table(
        table: Vec<Route>,
        manager: Manager,
        limits: Limits,
        stop: CancellationToken,
        warnings: &[String],
    ) -> Result<Self, serde_json::Error> {
        let document = Bytes::from(openapi::document(&table).to_pretty_json()?);
        let app = App {
            inner: Arc::new(Inner {
                manager,
                limits,
                stop,
                document,
                warnings: warnings.to_vec(),
                fetcher: Arc::new(Fetcher::new()),
            }),
        };
        let router = router(table, &app)
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(app);
        Ok(Self { router })
    }

    /// Answers one request; never fails and never panics.
    pub async fn respond(&self, request: Request<Body>, peer: SocketAddr) -> Response {
        let id = Uuid::now_v7();
        let started = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let work = AssertUnwindSafe(self.route(request, peer)).catch_unwind();
        let mut response = match work.await {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(%id, %method, %path, "a handler panicked");
                Failure::new(
                    ErrorCode::Internal,
                    format!("the server failed; its log tells more about request {id}"),
                )
                .into_response()
            }
        };
        add_headers(&mut response, id);
        record(&response, id, &method, &path, peer, started.elapsed());
        response
    }

    async fn route(&self, mut request: Request<Body>, peer: SocketAddr) -> Response {
        let Some(uri) = for_router(request.uri()) else {
            return not_found().await.into_response();
        };
        *request.uri_mut() = uri;
        request.extensions_mut().insert(Peer(peer.ip()));
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

async fn not_found() -> Failure {
    Problem::new(ErrorCode::NotFound, "there is nothing at this path")
        .with_hint("GET /v1/openapi.json lists all paths")
        .into()
}

async fn method_not_allowed(method: Method) -> Failure {
    Failure::new(
        ErrorCode::MethodNotAllowed,
        format!("this path does not take {method}"),
    )
}

fn add_headers(response: &mut Response, id: Uuid) {
    let fixed = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
}

/// Every request at debug; what may have changed something also in the audit log.
fn record(
    response: &Response,
    id: Uuid,
    method: &Method,
    path: &str,
    peer: SocketAddr,
    took: Duration,
) {
    let status = response.status().as_u16();
    let caller = response.extensions().get::<Caller>();
    let user = caller.map_or("-", |caller| caller.user.as_str());
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(target: "lodge::access", %id, %method, path, status, user, %peer, took_ms, "request");
    if !method.is_safe() && caller.is_some() {
        let from = peer.ip();
        tracing::info!(target: "lodge::audit", "{user} from {from}: {method} {path}: {status}");
    }
}
