//! What PID 1 and the local console get from us.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lodge_api::local::LocalConsole;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::TestServer;
use crate::local_console::{self, Fixed};
use crate::power;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_notice_of_shutdown_is_answered_when_guests_are_stopped() {
    let server = TestServer::start().await;
    let path = server.dir.path().join("init.sock");
    let init = UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(power::follow(server.manager.clone(), path));
    let (stream, _) = timeout(PATIENCE, init.accept()).await.unwrap().unwrap();
    let (read, mut write) = stream.into_split();
    let notice = b"{\"type\":\"shutdown\",\"action\":\"off\",\"deadline_s\":5}\n";
    write.write_all(notice).await.unwrap();
    let mut line = String::new();
    let mut read = BufReader::new(read);
    timeout(PATIENCE, read.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(line, "{\"type\":\"drained\"}\n");
    // Nonsense ends the link, and it is made anew.
    write.write_all(b"nonsense\n").await.unwrap();
    timeout(PATIENCE, init.accept()).await.unwrap().unwrap();
    task.abort();
    server.stop().await;
}

#[tokio::test]
async fn the_local_console_is_told_where_we_are() {
    let server = TestServer::start().await;
    let path = server.dir.path().join("local.json");
    let fixed = Fixed {
        listen: server.address,
        fingerprint: "AA:BB".to_owned(),
        warnings: vec!["first of all".to_owned()],
    };
    let task = tokio::spawn(local_console::keep(
        server.manager.clone(),
        path.clone(),
        fixed,
    ));
    let text = timeout(PATIENCE, async {
        loop {
            match std::fs::read(&path) {
                Ok(text) => return text,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let console: LocalConsole = serde_json::from_slice(&text.await.unwrap()).unwrap();
    assert_eq!(console.certificate_fingerprint, "AA:BB");
    assert_eq!(console.local_url, format!("https://{}", server.address));
    assert_eq!(console.warnings[0], "first of all");
    assert_eq!(console.initial_password, server.manager.initial_password());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    task.abort();
    server.stop().await;
}
