//! WebSockets: consoles and events.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http::header::AUTHORIZATION;
use lodge_api::Problem;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::connect::{self, protocol};
use crate::{Client, ClientError};

/// Largest message taken from a host.
const MAX_MESSAGE: usize = 1 << 20;

/// An open WebSocket.
pub struct Socket {
    stream: WebSocketStream<TlsStream<TcpStream>>,
    client: Client,
}

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    /// Console output.
    Bytes(Bytes),
    /// An event.
    Text(String),
    /// The host closed, with its reason.
    Closed(String),
}

impl Client {
    /// Opens a WebSocket at `path`.
    ///
    /// # Errors
    /// The host's problem when it refuses; [`ClientError`] otherwise.
    pub async fn websocket(&self, path: &str) -> Result<Socket, ClientError> {
        let request = self.upgrade(path)?;
        let stream = connect::open(&self.remote.url, self.remote.fingerprint).await?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
        match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
            Ok((stream, _)) => Ok(Socket {
                stream,
                client: self.clone(),
            }),
            Err(Error::Http(answer)) => Err(self.refused_upgrade(&answer)),
            Err(error) => Err(protocol(&self.remote.url, error)),
        }
    }

    fn upgrade(&self, path: &str) -> Result<Request<()>, ClientError> {
        let mut request = format!("wss://{}{path}", self.remote.url.authority())
            .into_client_request()
            .map_err(|error| ClientError::Usage(error.to_string()))?;
        if let Some(token) = &self.remote.token {
            let value = format!("Bearer {token}")
                .parse()
                .map_err(|_| ClientError::Usage("the stored token is damaged".to_owned()))?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn refused_upgrade(&self, answer: &http::Response<Option<Vec<u8>>>) -> ClientError {
        let body = answer.body().as_deref().unwrap_or_default();
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => problem.into(),
            Err(_) => protocol(
                &self.remote.url,
                format!("status {} instead of a WebSocket", answer.status()),
            ),
        }
    }
}

impl Socket {
    /// The next message; `Closed` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn receive(&mut self) -> Result<SocketMessage, ClientError> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(SocketMessage::Bytes(bytes)),
                Some(Ok(Message::Text(text))) => {
                    return Ok(SocketMessage::Text(text.as_str().to_owned()));
                }
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| frame.reason.as_str().to_owned());
                    return Ok(SocketMessage::Closed(reason.unwrap_or_default()));
                }
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    return Ok(SocketMessage::Closed(String::new()));
                }
                Some(Err(error)) => return Err(protocol(&self.client.remote.url, error)),
            }
        }
    }

    /// Sends console input.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.stream
            .send(Message::Binary(bytes))
            .await
            .map_err(|error| protocol(&self.client.remote.url, error))
    }

    /// Says goodbye; errors no longer matter.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}
