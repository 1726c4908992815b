//! Requests and their answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, IF_MATCH, LOCATION, USER_AGENT,
};
use http::response::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use lodge_api::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::connect::{self, Exchange, Trace, protocol};
use crate::{ClientError, Remote};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type RequestBody = BoxBody<Bytes, BoxError>;

/// Largest answer that is read into memory.
const MAX_ANSWER: usize = 32 << 20;

/// How long a host may take to answer. It answers at once or with an operation; uploads are bounded
/// by their progress on the host's side.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The same where it was asked to wait: its longest wait and some more.
const LONGEST_WAIT: Duration = Duration::from_secs(360);

/// Identifies this client to the host.
pub(crate) const AGENT: &str = concat!("lodge/", env!("CARGO_PKG_VERSION"));

/// A host, ready to be asked. Cheap to clone; clones share one idle connection.
#[derive(Clone)]
pub struct Client {
    pub(crate) remote: Arc<Remote>,
    pub(crate) trace: Option<Trace>,
    idle: Arc<Mutex<Option<SendRequest<RequestBody>>>>,
}

/// A successful answer (2xx).
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; empty for 204.
    pub body: Bytes,
}

impl Response {
    /// Value of `ETag`.
    pub fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }

    /// Value of `Location`.
    pub fn location(&self) -> Option<&str> {
        self.headers.get(LOCATION)?.to_str().ok()
    }
}

/// The content of an upload: a stream of chunks of known total length.
pub struct UploadBody<S> {
    /// The chunks.
    pub chunks: S,
    /// Their total length in bytes.
    pub length: u64,
}

impl<S> Body for UploadBody<S>
where
    S: futures_util::Stream<Item = std::io::Result<Bytes>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.chunks)
            .poll_next(context)
            .map(|next| next.map(|chunk| chunk.map(Frame::data).map_err(Into::into)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

impl Client {
    /// A client of `remote`; connects at the first request.
    pub fn new(remote: Remote, trace: Option<Trace>) -> Self {
        Self {
            remote: Arc::new(remote),
            trace,
            idle: Arc::default(),
        }
    }

    /// The remote it talks to.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// `GET` of an object.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for all methods here.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.raw(Method::GET, path, None, None).await?;
        self.parse(&response)
    }

    /// A request with a JSON body (or none), answered by an object.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        if_match: Option<&str>,
    ) -> Result<T, ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::Usage(error.to_string()))?;
        let response = self.raw(method, path, Some(body.into()), if_match).await?;
        self.parse(&response)
    }

    /// `POST` without a body, answered by an object.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.raw(Method::POST, path, None, None).await?;
        self.parse(&response)
    }

    /// `DELETE` of an object.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.raw(Method::DELETE, path, None, None).await.map(drop)
    }

    /// `DELETE` that is answered by an object, such as an operation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_answered<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.raw(Method::DELETE, path, None, None).await?;
        self.parse(&response)
    }

    /// A request as a person writes it: any method, path and JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        json: Option<Bytes>,
        if_match: Option<&str>,
    ) -> Result<Response, ClientError> {
        let mut builder = self.builder(method, path)?;
        if let Some(etag) = if_match {
            builder = builder.header(IF_MATCH, etag);
        }
        if json.is_some() {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        if let (Some(trace), Some(body)) = (self.trace, &json) {
            trace(&Exchange::Sent(&String::from_utf8_lossy(body)));
        }
        let body = Full::new(json.unwrap_or_default());
        let answer = self.perform(builder, body.map_err(|never| match never {}).boxed());
        let patience = if path.contains("wait=") {
            LONGEST_WAIT
        } else {
            ANSWER_TIMEOUT
        };
        tokio::time::timeout(patience, answer)
            .await
            .unwrap_or_else(|_| {
                let problem = format!("no answer within {} seconds", patience.as_secs());
                Err(protocol(&self.remote.url, problem))
            })
    }

    /// `POST` of a stream.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload<S>(&self, path: &str, body: UploadBody<S>) -> Result<Response, ClientError>
    where
        S: futures_util::Stream<Item = std::io::Result<Bytes>> + Unpin + Send + Sync + 'static,
    {
        let builder = self
            .builder(Method::POST, path)?
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, body.length);
        self.perform(builder, body.boxed()).await
    }

    /// `GET` of content that does not fit into memory. `begun` hears its length, if that is known, and `take` gets piece after piece;
    /// with less than all of it the call fails.
    ///
    /// # Errors
    /// See [`ClientError`]; what `take` fails with.
    pub async fn download(
        &self,
        path: &str,
        begun: impl FnOnce(Option<u64>),
        mut take: impl FnMut(Bytes) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let builder = self.builder(Method::GET, path)?;
        let empty = Full::default().map_err(|never| match never {}).boxed();
        let (parts, mut body, mut sender) = self.ask(builder, empty).await?;
        if !parts.status.is_success() {
            let response = self.read_all(parts, body).await?;
            return Err(self.refused(&response));
        }
        begun(body.size_hint().exact());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            if let Ok(piece) = frame.into_data() {
                take(piece)?;
            }
        }
        if sender.ready().await.is_ok() {
            *self.idle.lock().await = Some(sender);
        }
        Ok(())
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self, response: &Response) -> Result<T, ClientError> {
        serde_json::from_slice(&response.body)
            .map_err(|error| protocol(&self.remote.url, format!("unreadable answer: {error}")))
    }

    fn builder(&self, method: Method, path: &str) -> Result<http::request::Builder, ClientError> {
        if !path.starts_with('/') {
            return Err(ClientError::Usage(format!(
                "a path starts with '/', like /v1/vms; got \"{path}\""
            )));
        }
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.remote.url.authority())
            .header(USER_AGENT, AGENT);
        if let Some(token) = &self.remote.token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(builder)
    }

    async fn perform(
        &self,
        builder: http::request::Builder,
        body: RequestBody,
    ) -> Result<Response, ClientError> {
        let (parts, body, sender) = self.ask(builder, body).await?;
        let response = self.read_all(parts, body).await?;
        if !sender.is_closed() {
            *self.idle.lock().await = Some(sender);
        }
        if response.status.is_success() {
            Ok(response)
        } else {
            Err(self.refused(&response))
        }
    }

    /// Sends a request and returns the answer before its body.
    async fn ask(
        &self,
        builder: http::request::Builder,
        body: RequestBody,
    ) -> Result<(Parts, Incoming, SendRequest<RequestBody>), ClientError> {
        let request = builder
            .body(body)
            .map_err(|error| ClientError::Usage(format!("not a valid request: {error}")))?;
        if let Some(trace) = self.trace {
            trace(&Exchange::Sent(&format!(
                "{} {}",
                request.method(),
                request.uri()
            )));
        }
        let mut sender = self.sender().await?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        let (parts, body) = answer.into_parts();
        if let Some(trace) = self.trace {
            trace(&Exchange::Received(&parts.status.to_string()));
        }
        Ok((parts, body, sender))
    }

    async fn read_all(&self, parts: Parts, body: Incoming) -> Result<Response, ClientError> {
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| protocol(&self.remote.url, error))?
            .to_bytes();
        if let Some(trace) = self.trace {
            // What is no text, a picture, only upsets terminals.
            match std::str::from_utf8(&body) {
                Ok(text) => trace(&Exchange::Received(text)),
                Err(_) => trace(&Exchange::Received(&format!("({} bytes)", body.len()))),
            }
        }
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    async fn sender(&self) -> Result<SendRequest<RequestBody>, ClientError> {
        if let Some(mut sender) = self.idle.lock().await.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = connect::open(&self.remote.url, self.remote.fingerprint).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // It ends with the sender; its errors reach us through the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        protocol(&self.remote.url, format!("the connection broke: {error}"))
    }

    fn refused(&self, response: &Response) -> ClientError {
        match serde_json::from_slice::<Problem>(&response.body) {
            Ok(problem) => problem.into(),
            Err(_) => protocol(
                &self.remote.url,
                format!("status {} without a reason", response.status),
            ),
        }
    }
}
