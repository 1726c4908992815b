//! Accepts connections, bounds them, and carries HTTP over TLS on them.

mod activity;
mod body;
mod connection;
mod permits;
mod stream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::Server;
use crate::limits::Limits;
pub use body::BodyError;
use connection::Shared;
use permits::Permits;

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// Opens a listening socket. For `[::]` on a machine without IPv6, `0.0.0.0` takes its place.
///
/// # Errors
/// When the address is not ours or its port is taken.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_exactly(address) {
        Err(error) if no_ipv6(&error) && address.ip().is_unspecified() && address.is_ipv6() => {
            bind_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    }
}

fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // After a crash the manager is back in a second; connections of its predecessor may linger.
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Accepts connections until `stop` is cancelled, then gives those open `limits.drain` to end.
pub async fn run(
    listener: TcpListener,
    server: Server,
    tls: TlsAcceptor,
    limits: Limits,
    stop: CancellationToken,
) {
    let permits = Permits::new(limits.connections, limits.connections_per_peer);
    let drain = limits.drain;
    let shared = Arc::new(Shared {
        server,
        tls,
        limits,
        stop: stop.clone(),
    });
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => match permits.acquire(peer.ip()) {
                Ok(permit) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    tasks.spawn(connection::run(Arc::clone(&shared), stream, peer, permit));
                }
                Err(refused) => tracing::debug!(%peer, "connection refused: {refused}"),
            },
            Err(error) => after_failure(&error).await,
        }
    }
    drop(listener);
    tasks.close();
    let _ = tokio::time::timeout(drain + Duration::from_secs(1), tasks.wait()).await;
}

/// A connection that its peer has given up already is nothing; running out of descriptors or
/// memory passes only with time, and asking again at once would only burn it.
async fn after_failure(error: &io::Error) {
    use io::ErrorKind as K;
    if matches!(
        error.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::Interrupted
    ) {
        return;
    }
    tracing::warn!(%error, "accepting connections pauses");
    tokio::time::sleep(Duration::from_millis(200)).await;
}
