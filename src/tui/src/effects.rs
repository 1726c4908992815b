//! Carrying out what the model asks for.

use bytes::Bytes;
use http::Method;
use lodge_api::auth::{LoginRequest, Session};
use lodge_api::operation::Operation;
use lodge_api::system::SystemAction;
use lodge_api::vm::VmAction;
use lodge_client::{Client, ClientError, Remote, SocketMessage, encode_segment};
use tokio::sync::mpsc;

use crate::model::Message;

/// Console history asked for, in bytes.
const SCROLLBACK: u32 = 65536;

/// Starts, stops… a guest and reports how it went.
pub(crate) async fn vm_action(
    client: Client,
    name: String,
    action: VmAction,
    messages: mpsc::Sender<Message>,
) {
    let text = match perform(&client, &name, action).await {
        Ok(()) => format!("{name}: {} done", action.as_str()),
        Err(error) => format!("{name}: {error}"),
    };
    let _ = messages.send(Message::Notice(text)).await;
}

async fn perform(client: &Client, name: &str, action: VmAction) -> Result<(), ClientError> {
    let path = format!("/v1/vms/{}:{}", encode_segment(name), action.as_str());
    let response = client.raw(Method::POST, &path, None, None).await?;
    let operation: Operation = serde_json::from_slice(&response.body)
        .map_err(|error| ClientError::Usage(format!("unreadable answer: {error}")))?;
    client.wait_operation(operation.id, |_| {}).await.map(drop)
}

/// Powers the host off or restarts it.
pub(crate) async fn system_action(
    client: Client,
    action: SystemAction,
    messages: mpsc::Sender<Message>,
) {
    let (verb, text) = match action {
        SystemAction::Shutdown => ("shutdown", "The host is shutting down"),
        SystemAction::Reboot => ("reboot", "The host is restarting"),
    };
    let result = client
        .raw(Method::POST, &format!("/v1/system:{verb}"), None, None)
        .await;
    let text = result.map_or_else(|error| error.to_string(), |_| text.to_owned());
    let _ = messages.send(Message::Notice(text)).await;
}

/// Logs in and returns the remote with the session.
pub(crate) async fn log_in(
    remote: Remote,
    user: String,
    password: String,
) -> Result<Remote, ClientError> {
    let anonymous = Remote {
        token: None,
        user: None,
        ..remote
    };
    let session: Session = Client::new(anonymous.clone(), None)
        .send(
            Method::POST,
            "/v1/sessions",
            &LoginRequest { user, password },
            None,
        )
        .await?;
    Ok(Remote {
        user: Some(session.user.to_string()),
        token: Some(session.token),
        ..anonymous
    })
}

/// Carries a guest's console until either side ends it.
pub(crate) async fn console(
    client: Client,
    name: String,
    mut input: mpsc::Receiver<Vec<u8>>,
    messages: mpsc::Sender<Message>,
) {
    let path = format!(
        "/v1/vms/{}/console?scrollback={SCROLLBACK}",
        encode_segment(&name)
    );
    let mut socket = match client.websocket(&path).await {
        Ok(socket) => socket,
        Err(error) => {
            let _ = messages
                .send(Message::ConsoleClosed(error.to_string()))
                .await;
            return;
        }
    };
    let reason = loop {
        tokio::select! {
            typed = input.recv() => match typed {
                Some(bytes) => {
                    if let Err(error) = socket.send(Bytes::from(bytes)).await {
                        break error.to_string();
                    }
                }
                // The model has left the console already.
                None => return socket.close().await,
            },
            received = socket.receive() => match received {
                Ok(SocketMessage::Bytes(bytes)) => {
                    if messages.send(Message::ConsoleOutput(bytes.to_vec())).await.is_err() {
                        return;
                    }
                }
                Ok(SocketMessage::Text(_)) => {}
                Ok(SocketMessage::Closed(reason)) => break reason,
                Err(error) => break error.to_string(),
            },
        }
    };
    let _ = messages.send(Message::ConsoleClosed(reason)).await;
}
