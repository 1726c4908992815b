//! The server as its clients see it: real connections, a real manager in a directory of its own.

mod client;
mod external;
mod limits;
mod problems;
mod transport;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lodge_manager::{LogRing, Manager, ManagerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::Server;
use crate::limits::Limits;
use crate::{listen, tls};
use client::Client;

/// A server on a loopback port, gone with its value.
struct TestServer {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    manager: Manager,
    stop: CancellationToken,
    task: JoinHandle<()>,
    dir: TempDir,
}

impl TestServer {
    async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ManagerConfig::hosted(dir.path().join("data"), dir.path().join("run"));
        config.jail = false;
        let manager = Manager::open(config, LogRing::new()).await.unwrap();
        let tls_dir = dir.path().join("tls");
        let loaded = tls::load_or_generate(&tls_dir, "lodge-test", &[]).unwrap();
        let stop = CancellationToken::new();
        let server = Server::new(manager.clone(), limits.clone(), stop.clone(), &[]).unwrap();
        let acceptor = tls::acceptor(&loaded.identity).unwrap();
        let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(listen::run(
            listener,
            server,
            acceptor,
            limits,
            stop.clone(),
        ));
        let pem = std::fs::read(tls_dir.join("certificate.pem")).unwrap();
        Self {
            address,
            certificate: CertificateDer::from_pem_slice(&pem).unwrap(),
            manager,
            stop,
            task,
            dir,
        }
    }

    /// File with the certificate, for external clients.
    fn certificate_file(&self) -> PathBuf {
        self.dir.path().join("tls/certificate.pem")
    }

    /// A client without credentials, over HTTP/1.1.
    fn client(&self) -> Client {
        Client::new(self.address, self.certificate.clone())
    }

    /// Ends the server as SIGTERM does.
    async fn stop(self) {
        self.stop.cancel();
        let end = tokio::time::timeout(Duration::from_secs(10), self.task);
        end.await.expect("the server ends").unwrap();
        self.manager.close().await;
    }
}

/// Limits short enough to be waited for.
fn short_limits() -> Limits {
    Limits {
        handshake: Duration::from_millis(300),
        header_read: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        body_progress: Duration::from_millis(300),
        json_body: Duration::from_secs(1),
        response_stall: Duration::from_millis(500),
        drain: Duration::from_millis(500),
        ..Limits::default()
    }
}
