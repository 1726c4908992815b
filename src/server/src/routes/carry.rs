//! A WebSocket that carries a stream of bytes both ways: a guest's console, its screen, or a connection into it.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{interval, timeout};

use super::socket::{End, PROTOCOL, bounded, still_authorized};
use crate::app::App;
use crate::auth::Authenticated;

/// What viewers in browsers call RFB in binary messages.
const RFB_PROTOCOL: &str = "binary";

/// Most bytes of output in one message.
const CHUNK: usize = 16 << 10;

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A console, which ends with its guest.
    Console,
    /// An RFB connection to its screen, keyboard and mouse.
    Screen,
    /// A connection, whose directions end one by one: an empty message is the end of input.
    Connection,
}

impl Kind {
    /// The subprotocols that clients may ask for, by preference.
    fn protocols(self) -> &'static [&'static str] {
        match self {
            Self::Screen => &[RFB_PROTOCOL, PROTOCOL],
            Self::Console | Self::Connection => &[PROTOCOL],
        }
    }

    fn farewell(self) -> &'static str {
        match self {
            Self::Console => "the guest has ended",
            Self::Screen => "the guest has ended, or another viewer wanted to be alone",
            Self::Connection => "the guest has closed the connection",
        }
    }
}

/// Upgrades to a WebSocket that carries `stream`.
pub fn attach(
    app: App,
    who: Authenticated,
    upgrade: WebSocketUpgrade,
    stream: UnixStream,
    kind: Kind,
) -> Response {
    let upgrade = bounded(upgrade).protocols(kind.protocols().iter().copied());
    upgrade.on_upgrade(move |socket| carry(app, who, socket, stream, kind))
}

async fn carry(app: App, who: Authenticated, socket: WebSocket, stream: UnixStream, kind: Kind) {
    let (output, input) = stream.into_split();
    let (mut sink, messages) = socket.split();
    let silence = app.limits().silence;
    let end = tokio::select! {
        end = show(&app, &who, output, &mut sink, kind) => end,
        end = typed(silence, messages, input, kind) => end,
        () = app.stop().cancelled() => End::Stopping,
    };
    end.tell(sink).await;
}

/// Output of the guest. While the peer does not take a message no more is read.
async fn show(
    app: &App,
    who: &Authenticated,
    mut output: OwnedReadHalf,
    sink: &mut SplitSink<WebSocket, Message>,
    kind: Kind,
) -> End {
    let mut ping = interval(app.limits().ping);
    let mut buffer = vec![0; CHUNK];
    loop {
        let message = tokio::select! {
            read = output.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return End::Finished(kind.farewell()),
                Ok(n) => Message::Binary(Bytes::copy_from_slice(&buffer[..n])),
            },
            _ = ping.tick() => {
                if !still_authorized(app, who) {
                    return End::Unauthorized;
                }
                Message::Ping(Bytes::new())
            }
        };
        if sink.send(message).await.is_err() {
            return End::Peer;
        }
    }
}

/// Input for the guest. While the guest does not take it no more is read from the peer.
async fn typed(
    silence: Duration,
    mut messages: SplitStream<WebSocket>,
    mut input: OwnedWriteHalf,
    kind: Kind,
) -> End {
    loop {
        let bytes = match timeout(silence, messages.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
            Ok(Some(Ok(Message::Text(text)))) => Bytes::from(text),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return End::Peer,
        };
        // A guest that takes no more may still have something to say: its output tells the end.
        if kind == Kind::Connection && bytes.is_empty() {
            let _ = input.shutdown().await;
        } else {
            let _ = input.write_all(&bytes).await;
        }
    }
}
