//! What the WebSockets of the API have in common: bounds, keep-alive, and the reasons they end.

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use lodge_api::{ErrorCode, Problem};

use tokio::time::timeout;

use crate::app::App;
use crate::auth::Authenticated;

/// The subprotocol offered to browsers, which need one to carry a token.
pub const PROTOCOL: &str = "lodge";

/// Largest message taken from a client, in bytes.
const MAX_MESSAGE: usize = 64 << 10;

/// Time for the last message of a socket.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a WebSocket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// What it showed has ended.
    Finished(&'static str),
    /// The peer closed it, is gone, or broke the protocol.
    Peer,
    /// The server stops.
    Stopping,
    /// The session or token it was opened with does not hold any more.
    Unauthorized,
}

impl End {
    /// Says why, where that makes sense, and closes.
    pub async fn tell(self, mut sink: SplitSink<WebSocket, Message>) {
        if let Some(message) = self.message() {
            let _ = timeout(FAREWELL, sink.send(message)).await;
        }
    }

    fn message(self) -> Option<Message> {
        let (code, reason) = match self {
            Self::Finished(reason) => (close_code::NORMAL, reason),
            Self::Peer => return None,
            Self::Stopping => (close_code::AWAY, "the server stops"),
            Self::Unauthorized => (close_code::POLICY, "the session has ended"),
        };
        Some(Message::Close(Some(CloseFrame {
            code,
            reason: Utf8Bytes::from_static(reason),
        })))
    }
}

/// An upgrade with the bounds all of ours have.
pub fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .protocols([PROTOCOL])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .max_write_buffer_size(1 << 20)
        .write_buffer_size(0)
}

/// The problem of a request that should have been an upgrade.
pub fn no_upgrade(rejection: &WebSocketUpgradeRejection) -> Problem {
    Problem::new(
        ErrorCode::InvalidRequest,
        format!("this path is a WebSocket: {rejection}"),
    )
    .with_hint("open it as wss:// with a WebSocket client, over HTTP/1.1")
}

/// Whether the credential still holds that a socket was opened with.
pub fn still_authorized(app: &App, who: &Authenticated) -> bool {
    app.manager()
        .authenticate(&who.secret)
        .is_some_and(|identity| identity.role == who.identity.role)
}
