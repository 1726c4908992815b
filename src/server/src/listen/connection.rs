//! One connection, from the accepted socket to its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Verdict};
use super::body::ProgressBody;
use super::permits::Permit;
use super::stream::PeerStream;
use crate::app::Server;
use crate::limits::Limits;

/// Time a closing connection has for what it is sending.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// What somebody gets who speaks plain HTTP to the port.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 50\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS only: use a https:// URL.\r\n";

/// What all connections share.
pub struct Shared {
    /// Answers requests.
    pub server: Server,
    /// Speaks TLS.
    pub tls: TlsAcceptor,
    /// Bounds.
    pub limits: Limits,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// Carries a connection until it ends. Errors are the peer's business and only worth a debug line.
pub async fn run(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, permit: Permit) {
    let limits = &shared.limits;
    // An answer is written whole; waiting for more to come only delays it.
    let _ = stream.set_nodelay(true);
    let stream = PeerStream::new(stream, limits.response_stall, permit);
    let secured = tokio::select! {
        r = timeout(limits.handshake, secure(&shared.tls, stream)) => r,
        () = shared.stop.cancelled() => return,
    };
    match secured {
        Ok(Ok(stream)) => carry(&shared, stream, peer).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS session"),
        Err(_) => tracing::debug!(%peer, "no TLS session within the time for it"),
    }
}

/// The TLS session.
async fn secure(
    tls: &TlsAcceptor,
    stream: PeerStream,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // A TLS record starts with its type, 22 for a handshake; a method with a capital letter.
    if first[0].is_ascii_uppercase() {
        let mut stream = stream;
        stream.write_all(PLAIN_HTTP).await?;
        stream.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP"));
    }
    tls.accept(stream).await
}

/// Which version of HTTP a peer speaks is seen by its first bytes, whatever it has agreed on.
fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(limits.header_bytes as usize)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams)
        // What a peer can make us hold; enough for an upload at 20 MB/s over 50 ms.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn carry(
    shared: &Shared,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
) {
    let limits = &shared.limits;
    let activity = Activity::new();
    let service = {
        let (server, activity) = (shared.server.clone(), activity.clone());
        let (progress, discard) = (limits.body_progress, limits.discard);
        let discard_time = limits.discard_time;
        service_fn(move |request: Request<Incoming>| {
            let entry = activity.begin();
            let server = server.clone();
            let (request, leftover) = ProgressBody::wrap(request, progress);
            async move {
                let response = server.respond(request.map(Body::new), peer).await;
                leftover.discard(discard, discard_time).await;
                Ok::<_, Infallible>(response.map(|body| entry.follow(body)))
            }
        })
    };
    let builder = builder(limits);
    let mut connection =
        pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut tick = interval(watch_interval(limits));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing: Option<Instant> = None;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            () = shared.stop.cancelled(), if closing.is_none() => {
                connection.as_mut().graceful_shutdown();
                closing = Some(Instant::now() + limits.drain);
            }
            _ = tick.tick() => {}
        }
        if closing.is_some_and(|end| Instant::now() >= end) {
            return;
        }
        match activity.verdict(
            limits.idle,
            limits.response_stall,
            std::time::Instant::now(),
        ) {
            Verdict::Fine => {}
            Verdict::Idle if closing.is_some() => {}
            Verdict::Idle => {
                connection.as_mut().graceful_shutdown();
                closing = Some(Instant::now() + CLOSE_GRACE);
            }
            Verdict::Stalled => {
                tracing::debug!(%peer, "the peer does not take its answers");
                return;
            }
        }
    }
}

/// How often a connection is looked at: often enough for the shortest of its bounds.
fn watch_interval(limits: &Limits) -> Duration {
    let shortest = limits.idle.min(limits.response_stall).min(limits.drain);
    (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_valid_http() {
        let text = std::str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}
