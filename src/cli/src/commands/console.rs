//! A guest's console in this terminal, and connections into it.

use std::io::{IsTerminal, Read, Write};

use bytes::Bytes;
use lodge_client::{ClientError, Socket, SocketMessage};
use tokio::sync::mpsc;

use super::path;
use crate::context::Context;
use crate::target::Target;

/// Ctrl-], as in telnet and virsh: rarely needed by guests.
const ESCAPE: u8 = 0x1d;

/// Connects the terminal to the console until the guest ends or Ctrl-] is pressed.
pub(crate) async fn open(
    context: &Context,
    target: &Target,
    scrollback: u32,
    virtio: bool,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let port = if virtio { "virtio" } else { "serial" };
    let url = format!(
        "{}/console?scrollback={scrollback}&port={port}",
        path("vms", &target.name)
    );
    let socket = client.websocket(&url).await?;
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        eprintln!("Connected to {}; press Ctrl-] to leave.", target.name);
        crossterm::terminal::enable_raw_mode().map_err(terminal)?;
    }
    let ends = if interactive {
        Ends::Escape
    } else {
        Ends::Never
    };
    let result = pump(socket, ends).await;
    if interactive {
        crossterm::terminal::disable_raw_mode().map_err(terminal)?;
    }
    let reason = result?;
    if !reason.is_empty() {
        eprintln!("\n{reason}");
    }
    Ok(())
}

/// Connects standard input and output to a vsock port of the guest until the guest closes the connection.
pub(crate) async fn connect(
    context: &Context,
    target: &Target,
    port: u32,
) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let url = format!("{}/vsock?port={port}", path("vms", &target.name));
    let socket = client.websocket(&url).await?;
    let reason = pump(socket, Ends::WithInput).await?;
    if !reason.is_empty() {
        eprintln!("{reason}");
    }
    Ok(())
}

/// What the end of standard input, or a key, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Nothing: output goes on, as `console < script` expects.
    Never,
    /// A key leaves the console.
    Escape,
    /// The guest is told that no more comes.
    WithInput,
}

fn terminal(source: std::io::Error) -> ClientError {
    ClientError::File {
        path: "terminal".to_owned(),
        source,
    }
}

async fn pump(mut socket: Socket, ends: Ends) -> Result<String, ClientError> {
    let mut input = keyboard();
    let mut output = std::io::stdout();
    let mut listening = true;
    loop {
        tokio::select! {
            typed = input.recv(), if listening => match typed {
                Some(bytes) => {
                    let escape = bytes.iter().position(|b| *b == ESCAPE).filter(|_| ends == Ends::Escape);
                    let rest = escape.map_or_else(|| bytes.clone(), |at| bytes.slice(..at));
                    if !rest.is_empty() {
                        socket.send(rest).await?;
                    }
                    if escape.is_some() {
                        socket.close().await;
                        return Ok(String::new());
                    }
                }
                None => {
                    listening = false;
                    if ends == Ends::WithInput {
                        // An empty message stands for the end. A host that takes no more may still
                        // have something to say.
                        let _ = socket.send(Bytes::new()).await;
                    }
                }
            },
            message = socket.receive() => match message? {
                SocketMessage::Bytes(bytes) => {
                    output.write_all(&bytes).and_then(|()| output.flush()).map_err(terminal)?;
                }
                SocketMessage::Text(_) => {}
                SocketMessage::Closed(reason) => return Ok(reason),
            },
        }
    }
}

/// Standard input as it comes, read by a thread because a terminal cannot be polled reliably.
fn keyboard() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        let mut input = std::io::stdin().lock();
        while let Ok(length @ 1..) = input.read(&mut buffer) {
            if sender
                .blocking_send(Bytes::copy_from_slice(&buffer[..length]))
                .is_err()
            {
                break;
            }
        }
    });
    receiver
}
