//! One request of any kind to a server of the web, and its answer.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::response::Parts;
use http::{HeaderValue, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use url::Url;

use crate::fetch::host;
use crate::request::AGENT;
use crate::{FetchError, Fetcher};

/// Bytes of a body that are handed to the connection at a time: what shows that it moves.
const PIECE: usize = 64 << 10;

/// An answer, whose body has not been read.
pub struct Exchanged {
    /// Its status and headers.
    pub parts: Parts,
    body: Incoming,
    patience: Duration,
    /// The connection ends with it.
    _sender: SendRequest<Outgoing>,
}

impl Exchanged {
    /// The next bytes of the body; none at its end.
    ///
    /// # Errors
    /// When it breaks off, or nothing comes for a minute.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let frame = timeout(self.patience, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                let seconds = self.patience.as_secs();
                io::Error::other(format!("nothing came for {seconds} seconds"))
            })?;
            let Some(frame) = frame else { return Ok(None) };
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
                // Trailers tell nothing that is wanted.
                _ => {}
            }
        }
    }

    /// All of the body, which has at most `most` bytes.
    ///
    /// # Errors
    /// As [`Exchanged::piece`], and for a longer one.
    pub async fn all(mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            if all.len() + piece.len() > most {
                return Err(io::Error::other(format!("more than {most} bytes")));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

/// A body on its way, which counts what has gone.
struct Outgoing {
    rest: Bytes,
    gone: Arc<AtomicU64>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        self.gone.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Fetcher {
    /// Sends a request to the server of `url` and waits for the answer. Redirections are answers as others are. The request's URI is the path
    /// alone; `Host` and `User-Agent` are added.
    ///
    /// # Errors
    /// [`FetchError`], also when for a minute nothing of the body goes and no answer comes.
    pub async fn exchange_once(
        &self,
        url: &Url,
        request: Request<Bytes>,
    ) -> Result<Exchanged, FetchError> {
        let gone = Arc::new(AtomicU64::new(0));
        let mut request = request.map(|rest| Outgoing {
            rest,
            gone: gone.clone(),
        });
        let authority = HeaderValue::from_str(&authority(url))
            .map_err(|_| FetchError::Url("it names no host".to_owned()))?;
        request.headers_mut().insert(HOST, authority);
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let stream = self.connect(url).await?;
        let failed = |problem: String| FetchError::Failed(format!("{}: {problem}", host(url)));
        let begun = timeout(self.patience, http1::handshake(TokioIo::new(stream))).await;
        let (mut sender, connection) = begun
            .map_err(|_| failed("the connection stalls".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        // What goes wrong with it shows in the answer.
        tokio::spawn(connection);
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        let mut before = 0;
        let answer = loop {
            match timeout(self.patience, &mut answer).await {
                Ok(answer) => break answer,
                Err(_) if gone.load(Ordering::Relaxed) > before => {
                    before = gone.load(Ordering::Relaxed);
                }
                Err(_) => {
                    let seconds = self.patience.as_secs();
                    return Err(failed(format!("no answer within {seconds} seconds")));
                }
            }
        };
        let (parts, body) = answer
            .map_err(|error| failed(error.to_string()))?
            .into_parts();
        Ok(Exchanged {
            parts,
            body,
            patience: self.patience,
            _sender: sender,
        })
    }
}

/// What the `Host` header says of a URL.
fn authority(url: &Url) -> String {
    match url.port() {
        Some(port) => format!("{}:{port}", host(url)),
        None => host(url).to_owned(),
    }
}
