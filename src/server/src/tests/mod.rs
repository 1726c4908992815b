//! The server as its clients see it: real connections, a real manager in a directory of its own.

mod access;
mod client;
mod configuration;
mod console;
mod display;
mod downloads;
mod external;
mod fetches;
mod limits;
mod objects;
mod power;
mod problems;
mod sessions;
mod sockets;
mod transport;
mod uploads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use lodge_manager::{LogRing, Manager, ManagerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::Server;
use crate::limits::Limits;
use crate::route::Route;
use crate::routes::table;
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
        Self::with_table(table(), limits).await
    }

    /// A server with methods of the test's own.
    async fn with_table(table: Vec<Route>, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ManagerConfig::hosted(dir.path().join("data"), dir.path().join("run"));
        config.jail = false;
        let manager = Manager::open(config, LogRing::new()).await.unwrap();
        let tls_dir = dir.path().join("tls");
        let loaded = tls::load_or_generate(&tls_dir, "lodge-test", &[]).unwrap();
        let stop = CancellationToken::new();
        let server =
            Server::with_table(table, manager.clone(), limits.clone(), stop.clone(), &[]).unwrap();
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

    /// The administrator's password.
    fn password(&self) -> String {
        self.manager.initial_password().expect("a random password")
    }

    /// A client with the rights of an administrator.
    async fn login(&self) -> Client {
        self.login_as("admin", &self.password()).await
    }

    async fn login_as(&self, user: &str, password: &str) -> Client {
        let token = self.token_of(user, password).await;
        self.client().token(&token)
    }

    /// An administrator, and the token for those who speak for themselves.
    async fn login_with_token(&self) -> (Client, String) {
        let token = self.token_of("admin", &self.password()).await;
        (self.client().token(&token), token)
    }

    async fn token_of(&self, user: &str, password: &str) -> String {
        let login = json!({"user": user, "password": password});
        let session = self.client().post("/v1/sessions", login).await.expect(201);
        session["token"].as_str().unwrap().to_owned()
    }

    /// Ends the server as SIGTERM does.
    async fn stop(self) {
        self.stop.cancel();
        let end = tokio::time::timeout(Duration::from_secs(10), self.task);
        end.await.expect("the server ends").unwrap();
        self.manager.close().await;
    }
}

/// Limits short enough to be waited for, long enough for honest clients on a busy machine.
fn short_limits() -> Limits {
    Limits {
        handshake: Duration::from_secs(2),
        header_read: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        body_progress: Duration::from_secs(1),
        json_body: Duration::from_secs(2),
        response_stall: Duration::from_secs(1),
        ping: Duration::from_millis(200),
        silence: Duration::from_secs(2),
        drain: Duration::from_secs(1),
        ..Limits::default()
    }
}

/// The least that is a kernel: an ELF file for x86-64 with one segment and a PVH entry point.
fn kernel() -> Bytes {
    let note: [u8; 20] = {
        let mut note = [0; 20];
        note[0] = 4;
        note[4] = 4;
        note[8] = 18;
        note[12..15].copy_from_slice(b"Xen");
        note[16..20].copy_from_slice(&0x10_0000u32.to_le_bytes());
        note
    };
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&2u16.to_le_bytes());
    elf.extend_from_slice(&62u16.to_le_bytes());
    elf.extend_from_slice(&1u32.to_le_bytes());
    for word in [0x10_0000u64, 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    let end = 64 + 2 * 56;
    for (kind, offset, size) in [(1u32, end, 20u64), (4, end, 20)] {
        elf.extend_from_slice(&kind.to_le_bytes());
        elf.extend_from_slice(&5u32.to_le_bytes());
        for word in [offset, 0x10_0000, 0x10_0000, size, size, 4] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
    }
    elf.extend_from_slice(&note);
    elf.into()
}
