//! Carrying out what the model asks for.

use bytes::Bytes;
use http::Method;
use lodge_api::auth::{LoginRequest, Session};
use lodge_api::install::{HostDisk, Install};
use lodge_api::operation::Operation;
use lodge_api::page::Page;
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

/// Asks what disks the host has.
pub(crate) async fn list_disks(client: Client, messages: mpsc::Sender<Message>) {
    let page: Result<Page<HostDisk>, ClientError> = client.get("/v1/system/disks").await;
    let disks = page.map(|page| page.items);
    let disks = disks.map_err(|error| error.to_string());
    let _ = messages.send(Message::Disks(disks)).await;
}

/// Installs Lodge on a disk, and tells how far it is.
pub(crate) async fn install(client: Client, request: Install, messages: mpsc::Sender<Message>) {
    let started: Result<Operation, ClientError> = client
        .send(Method::POST, "/v1/system:install", &request, None)
        .await;
    let ended = match started {
        Ok(operation) => {
            let told = messages.clone();
            let tell = move |operation: &Operation| {
                if let Some(progress) = &operation.progress {
                    let percent = progress.done.saturating_mul(100) / progress.total.max(1);
                    let text = format!("Installing: {} {percent}%", progress.phase);
                    // What is not shown now is told again in a moment.
                    let _ = told.try_send(Message::Notice(text));
                }
            };
            client.wait_operation(operation.id, tell).await.map(drop)
        }
        Err(error) => Err(error),
    };
    let text = match ended {
        Ok(()) => "Lodge is installed. Remove the stick or the CD before the next start".to_owned(),
        Err(error) => format!("Not installed: {error}"),
    };
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
