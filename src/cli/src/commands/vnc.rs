//! A guest's screen for any VNC viewer: a port here that leads to the guest.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use clap::Args;
use lodge_client::{Client, ClientError, Socket, SocketMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::path;
use crate::context::Context;
use crate::target::Target;

/// VNC viewers call a port by what it is above this one.
const FIRST_PORT: u16 = 5900;

/// Most bytes in one message: what hosts take.
const CHUNK: usize = 16 << 10;

#[derive(Debug, Args)]
pub(crate) struct Vnc {
    /// [REMOTE:]NAME
    name: Target,
    /// Address and port for viewers; port 0 is any that is free. Whoever can connect to it controls the VM
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5900")]
    listen: SocketAddr,
}

/// Listens, and connects every viewer that comes to the guest's screen, until interrupted.
pub(crate) async fn serve(context: &Context, options: Vnc) -> Result<(), ClientError> {
    let name = &options.name.name;
    let client = context.client(options.name.remote.as_deref())?;
    let url = format!("{}/vnc", path("vms", name));
    // What is in the way is better said before a viewer stumbles over it.
    client.websocket(&url).await?.close().await;
    let listener = listen(options.listen).await?;
    let address = listener
        .local_addr()
        .map_err(|source| failed(options.listen, source))?;
    eprintln!(
        "The screen of {name} is at {}; no password is needed. Ctrl-C ends this.",
        shown(address)
    );
    loop {
        match listener.accept().await {
            Ok((viewer, _)) => {
                tokio::spawn(carry(client.clone(), url.clone(), viewer));
            }
            // Out of descriptors, or a viewer that left at once: the next may do better.
            Err(error) => {
                eprintln!("a viewer could not connect: {error}");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ClientError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ClientError::Usage(format!(
            "{address} is in use: choose another port with --listen, 127.0.0.1:0 for any that is free"
        )),
        _ => failed(address, source),
    })
}

fn failed(address: SocketAddr, source: io::Error) -> ClientError {
    let path = address.to_string();
    ClientError::File { path, source }
}

/// An address, and what viewers call it where they have a name for it.
fn shown(address: SocketAddr) -> String {
    match address.port().checked_sub(FIRST_PORT) {
        Some(display @ 0..100) => format!("{address} (display {}:{display})", address.ip()),
        _ => address.to_string(),
    }
}

/// Serves one viewer to its end.
async fn carry(client: Client, url: String, mut viewer: TcpStream) {
    // Motions of the mouse are small, and late ones are worth nothing.
    let _ = viewer.set_nodelay(true);
    let end = match client.websocket(&url).await {
        Ok(socket) => relay(socket, &mut viewer).await,
        Err(error) => Err(error),
    };
    match end {
        Ok(reason) if reason.is_empty() => {}
        Ok(reason) => eprintln!("{reason}"),
        Err(error) => eprintln!("{error}"),
    }
}

/// Carries bytes both ways until either end closes; returns what the host said at the end.
async fn relay(mut socket: Socket, viewer: &mut TcpStream) -> Result<String, ClientError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        tokio::select! {
            said = viewer.read(&mut buffer) => match said {
                Ok(count @ 1..) => socket.send(Bytes::copy_from_slice(&buffer[..count])).await?,
                // The viewer has left.
                Ok(0) | Err(_) => {
                    socket.close().await;
                    return Ok(String::new());
                }
            },
            message = socket.receive() => match message? {
                SocketMessage::Bytes(bytes) => {
                    if viewer.write_all(&bytes).await.is_err() {
                        socket.close().await;
                        return Ok(String::new());
                    }
                }
                SocketMessage::Text(_) => {}
                SocketMessage::Closed(reason) => return Ok(reason),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_are_told_the_display_where_there_is_one() {
        for (address, text) in [
            ("127.0.0.1:5900", "127.0.0.1:5900 (display 127.0.0.1:0)"),
            ("127.0.0.1:5942", "127.0.0.1:5942 (display 127.0.0.1:42)"),
            ("127.0.0.1:6000", "127.0.0.1:6000"),
            ("127.0.0.1:80", "127.0.0.1:80"),
        ] {
            assert_eq!(shown(address.parse().unwrap()), text);
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_no_riddle() {
        let first = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = listen(first.local_addr().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("--listen"), "{error}");
    }
}
