//! A guest's console over a WebSocket.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use lodge_api::privilege::Privilege;
use lodge_api::vm::ConsoleParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{interval, timeout};

use super::socket::{End, bounded, no_upgrade, still_authorized};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get};
use crate::wire::query::Query;
use crate::wire::reply::Answer;

/// Most bytes of output in one message.
const CHUNK: usize = 16 << 10;

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::VmConsole);
    vec![
        get("/v1/vms/{vm}/console", access, "vm_console", vm_console)
            .summary("A running guest's console, as a WebSocket")
            .description(
                "Binary messages carry bytes both ways; text is taken as bytes too. Closed with \
                 1000 when the guest ends, 1001 when the server stops, 1008 when the session has \
                 ended. A client that reads too slowly misses output; it never holds the guest up. \
                 Browsers send their token as the subprotocol `bearer.TOKEN` beside `lodge`.",
            )
            .query::<ConsoleParams>()
            .answers_other(101, "The WebSocket.", None),
    ]
}

async fn vm_console(
    State(app): State<App>,
    Path(key): Path<String>,
    who: Authenticated,
    Query(params): Query<ConsoleParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|rejection| no_upgrade(&rejection))?;
    let manager = app.manager();
    let console = manager.vm_console(&who.caller, &key, params).await?;
    Ok(attach(app, who, upgrade, console))
}

/// Upgrades to a WebSocket that carries `console`.
pub fn attach(
    app: App,
    who: Authenticated,
    upgrade: WebSocketUpgrade,
    console: UnixStream,
) -> Response {
    bounded(upgrade).on_upgrade(move |socket| carry(app, who, socket, console))
}

async fn carry(app: App, who: Authenticated, socket: WebSocket, console: UnixStream) {
    let (output, input) = console.into_split();
    let (mut sink, stream) = socket.split();
    let silence = app.limits().silence;
    let end = tokio::select! {
        end = show(&app, &who, output, &mut sink) => end,
        end = typed(silence, stream, input) => end,
        () = app.stop().cancelled() => End::Stopping,
    };
    end.tell(sink).await;
}

/// Output of the guest. While the peer does not take a message no more is read, and the monitor drops.
async fn show(
    app: &App,
    who: &Authenticated,
    mut output: OwnedReadHalf,
    sink: &mut SplitSink<WebSocket, Message>,
) -> End {
    let mut ping = interval(app.limits().ping);
    let mut buffer = vec![0; CHUNK];
    loop {
        let message = tokio::select! {
            read = output.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return End::Finished("the guest has ended"),
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
    mut stream: SplitStream<WebSocket>,
    mut input: OwnedWriteHalf,
) -> End {
    loop {
        let bytes = match timeout(silence, stream.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
            Ok(Some(Ok(Message::Text(text)))) => Bytes::from(text),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return End::Peer,
        };
        if input.write_all(&bytes).await.is_err() {
            return End::Finished("the guest has ended");
        }
    }
}
