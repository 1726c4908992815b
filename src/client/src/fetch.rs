//! Files on the web, which a host fetches by itself.
//!
//! Unlike the hosts that the rest of this crate talks to, these servers are nobody's remotes: the public authorities vouch for
//! their certificates, and nothing they say is relied on.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE, USER_AGENT,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::connect::{self, CONNECT_TIMEOUT};
use crate::request::AGENT;
use crate::{Authority, BaseUrl, tls};

/// How long a server may take to begin its answer, and how long it may pause.
const PATIENCE: Duration = Duration::from_secs(60);

/// Redirections that are followed.
const MOST_REDIRECTIONS: usize = 10;

/// How often a transfer that has broken off is taken up again before another byte comes.
const MOST_RESUMPTIONS: u32 = 5;

/// Fetches files from servers that it may reach.
pub struct Fetcher {
    tls: TlsConnector,
    reachable: fn(IpAddr) -> bool,
    pub(crate) patience: Duration,
}

/// What bytes come and go by.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

/// A file on its way.
pub struct Fetched {
    /// Bytes of it, if the server has said so.
    pub length: Option<u64>,
    /// They, or the reason why there are no more of them.
    pub pieces: BoxStream<'static, io::Result<Bytes>>,
}

/// Why a file cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody could fetch that.
    #[error("not a URL that can be fetched: {0}")]
    Url(String),
    /// The server is not there, refuses, or does not do as HTTP says.
    #[error("{0}")]
    Failed(String),
}

/// Whether a host may fetch from there: not from itself, where services trust whoever reaches them, and not from its link
/// without an address, where clouds keep their guests' credentials.
pub fn outside(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Reads a URL: `http` or `https`, without a user's name in it.
///
/// # Errors
/// [`FetchError::Url`].
pub fn fetch_url(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(|error| FetchError::Url(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FetchError::Url(
            "it must begin with https:// or http://".to_owned(),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::Url(
            "names and passwords in it are not sent".to_owned(),
        ));
    }
    Ok(url)
}

/// An answer whose body has not been read.
struct Answer {
    /// Where it came from in the end.
    url: Url,
    parts: Parts,
    body: Incoming,
    /// The connection ends with it.
    _sender: SendRequest<Empty<Bytes>>,
}

/// The rest of a file, if it is still the same.
struct Rest<'a> {
    position: u64,
    validator: &'a HeaderValue,
}

impl Fetcher {
    /// One that trusts the public authorities, and reaches what is [`outside`].
    pub fn new() -> Self {
        Self::with(tls::public(), outside)
    }

    /// One that trusts these authorities as well.
    pub fn trusting(authorities: &[Authority]) -> Self {
        Self::with(tls::public_and(authorities), outside)
    }

    /// The same, which reaches everything, also the machine it runs on.
    #[must_use]
    pub fn anywhere(self) -> Self {
        let reachable = |_| true;
        Self { reachable, ..self }
    }

    fn with(tls: TlsConnector, reachable: fn(IpAddr) -> bool) -> Self {
        Self {
            tls,
            reachable,
            patience: PATIENCE,
        }
    }

    /// Asks for a file. Its transfer is taken up again where it breaks off, if the server can do that.
    ///
    /// # Errors
    /// [`FetchError`]; that the transfer broke off is an error of `pieces`.
    pub async fn fetch(self: &Arc<Self>, url: &Url) -> Result<Fetched, FetchError> {
        let answer = self.ask(url, None).await?;
        let host = host(&answer.url).to_owned();
        let headers = &answer.parts.headers;
        if answer.parts.status != StatusCode::OK {
            return Err(FetchError::Failed(format!(
                "{host} answered {}",
                answer.parts.status
            )));
        }
        if headers
            .get(CONTENT_ENCODING)
            .is_some_and(|encoding| encoding != "identity")
        {
            let text = format!("{host} sends it compressed, which nobody asked for");
            return Err(FetchError::Failed(text));
        }
        let length = text(headers, CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let transfer = Transfer {
            fetcher: Arc::clone(self),
            validator: validator(headers).cloned(),
            answer,
            length,
            position: 0,
            resumptions: 0,
        };
        let pieces = stream::try_unfold(transfer, Transfer::next);
        Ok(Fetched {
            length,
            pieces: pieces.boxed(),
        })
    }

    /// Asks, and asks again where it is sent to.
    async fn ask(&self, url: &Url, rest: Option<&Rest<'_>>) -> Result<Answer, FetchError> {
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTIONS {
            let answer = self.ask_once(url.clone(), rest).await?;
            if !answer.parts.status.is_redirection() {
                return Ok(answer);
            }
            url = redirected(&url, &answer.parts.headers)?;
        }
        let text = format!(
            "{} redirects more than {MOST_REDIRECTIONS} times",
            host(&url)
        );
        Err(FetchError::Failed(text))
    }

    async fn ask_once(&self, url: Url, rest: Option<&Rest<'_>>) -> Result<Answer, FetchError> {
        let request = request(&url, rest)?;
        let stream = self.connect(&url).await?;
        self.exchange(stream, request, url).await
    }

    /// A connection to the server of a URL, encrypted where that says so.
    pub(crate) async fn connect(&self, url: &Url) -> Result<Box<dyn Connection>, FetchError> {
        let port = url.port_or_known_default().unwrap_or_default();
        let base: BaseUrl = format!("{}:{port}", host(url))
            .parse()
            .map_err(|_| FetchError::Url("it names no host".to_owned()))?;
        let stream = connect::connect(&base, self.reachable)
            .await
            .map_err(|error| FetchError::Failed(error.to_string()))?;
        if url.scheme() == "http" {
            return Ok(Box::new(stream));
        }
        let name =
            connect::server_name(&base).map_err(|error| FetchError::Url(error.to_string()))?;
        let secured = timeout(CONNECT_TIMEOUT, self.tls.connect(name, stream)).await;
        match secured {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(FetchError::Failed(format!(
                "{}: TLS failed: {error}",
                host(url)
            ))),
            Err(_) => Err(FetchError::Failed(format!(
                "{}: no TLS handshake within {} seconds",
                host(url),
                CONNECT_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn exchange(
        &self,
        stream: Box<dyn Connection>,
        request: Request<Empty<Bytes>>,
        url: Url,
    ) -> Result<Answer, FetchError> {
        let failed = |problem: String| FetchError::Failed(format!("{}: {problem}", host(&url)));
        let asked = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // What goes wrong with it shows in the answer.
            tokio::spawn(connection);
            let answer = sender.send_request(request).await?;
            Ok::<_, hyper::Error>((answer, sender))
        };
        let (answer, sender) = timeout(self.patience, asked)
            .await
            .map_err(|_| {
                failed(format!(
                    "no answer within {} seconds",
                    self.patience.as_secs()
                ))
            })?
            .map_err(|error| failed(error.to_string()))?;
        let (parts, body) = answer.into_parts();
        Ok(Answer {
            url,
            parts,
            body,
            _sender: sender,
        })
    }
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

/// Host of a URL, with brackets around an IPv6 address.
pub(crate) fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn request(url: &Url, rest: Option<&Rest<'_>>) -> Result<Request<Empty<Bytes>>, FetchError> {
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let authority = match url.port() {
        Some(port) => format!("{}:{port}", host(url)),
        None => host(url).to_owned(),
    };
    let mut builder = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT_ENCODING, "identity");
    if let Some(rest) = rest {
        builder = builder
            .header(RANGE, format!("bytes={}-", rest.position))
            .header(IF_RANGE, rest.validator);
    }
    builder
        .body(Empty::new())
        .map_err(|error| FetchError::Url(error.to_string()))
}

/// Where the answer sends whoever asked for `url`.
fn redirected(url: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let wrong = |problem: &str| FetchError::Failed(format!("{} redirects {problem}", host(url)));
    let location = text(headers, LOCATION).ok_or_else(|| wrong("to nowhere"))?;
    let next = url.join(location).map_err(|_| wrong("to what is no URL"))?;
    let next = fetch_url(next.as_str()).map_err(|error| wrong(&format!("to {error}")))?;
    if url.scheme() == "https" && next.scheme() != "https" {
        return Err(wrong(
            "from https to http, where anybody could change the file",
        ));
    }
    Ok(next)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// By what it can be told that a file has changed: a strong entity tag, else its date (RFC 9110, section 13.1.5).
fn validator(headers: &HeaderMap) -> Option<&HeaderValue> {
    let strong = |tag: &&HeaderValue| !tag.as_bytes().starts_with(b"W/");
    headers
        .get(ETAG)
        .filter(strong)
        .or_else(|| headers.get(LAST_MODIFIED))
}

/// A file, as far as it has come.
struct Transfer {
    fetcher: Arc<Fetcher>,
    answer: Answer,
    validator: Option<HeaderValue>,
    length: Option<u64>,
    position: u64,
    resumptions: u32,
}

impl Transfer {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        loop {
            match self.piece().await {
                Ok(Some(piece)) => {
                    self.position += piece.len() as u64;
                    self.resumptions = 0;
                    return Ok(Some((piece, self)));
                }
                Ok(None) if self.length.is_none_or(|length| length == self.position) => {
                    return Ok(None);
                }
                Ok(None) => self.resume("it ended early").await?,
                Err(problem) => self.resume(&problem).await?,
            }
        }
    }

    /// The next bytes; none at the end of what the server sends.
    async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        let patience = self.fetcher.patience;
        loop {
            let frame = timeout(patience, self.answer.body.frame())
                .await
                .map_err(|_| format!("nothing came for {} seconds", patience.as_secs()))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| error.to_string())?;
            match frame.into_data() {
                Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
                // Trailers tell nothing that is wanted.
                _ => {}
            }
        }
    }

    /// Asks for the rest.
    async fn resume(&mut self, problem: &str) -> io::Result<()> {
        let position = self.position;
        let mut problem = problem.to_owned();
        let host = host(&self.answer.url).to_owned();
        while let Some(validator) = &self.validator
            && self.resumptions < MOST_RESUMPTIONS
        {
            self.resumptions += 1;
            sleep(Duration::from_millis(250) * self.resumptions).await;
            let rest = Rest {
                position,
                validator,
            };
            match self.fetcher.ask(&self.answer.url, Some(&rest)).await {
                Ok(answer) if is_rest(&answer.parts, position) => {
                    self.answer = answer;
                    return Ok(());
                }
                Ok(answer) if answer.parts.status == StatusCode::OK => {
                    problem = "the server has another file by now, or cannot send the rest of one"
                        .to_owned();
                    break;
                }
                Ok(answer) => {
                    problem = format!("the rest was answered with {}", answer.parts.status);
                }
                Err(error) => problem = error.to_string(),
            }
        }
        Err(io::Error::other(format!(
            "{host} stopped after {position} bytes: {problem}"
        )))
    }
}

/// Whether an answer has what comes from `position` on.
fn is_rest(parts: &Parts, position: u64) -> bool {
    let begin = format!("bytes {position}-");
    parts.status == StatusCode::PARTIAL_CONTENT
        && text(&parts.headers, CONTENT_RANGE).is_some_and(|range| range.starts_with(&begin))
}

#[cfg(test)]
mod tests;
