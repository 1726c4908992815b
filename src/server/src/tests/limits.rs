//! Peers that hold on, go slow or want too much.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{TestServer, short_limits};
use crate::limits::Limits;

/// Long enough for anything the short limits bound, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server sends until it closes.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // How it ends, with or without a notice of TLS, does not matter here.
    let _ = end.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_silent_handshake_is_cut_off() {
    let server = TestServer::with(short_limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    rest(&mut stream).await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
    rest(&mut half).await;
    server.stop().await;
}

#[tokio::test]
async fn headers_that_come_too_slowly_are_cut_off() {
    let server = TestServer::with(short_limits()).await;
    let mut stream = server.client().tls("http/1.1").await;
    let started = Instant::now();
    stream
        .write_all(b"GET /v1 HTTP/1.1\r\nhost: x\r\n")
        .await
        .unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let trickle = async {
        // Each byte in time; all together never.
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if write.write_all(b"a").await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
    };
    let text = tokio::select! {
        text = rest(&mut read) => text,
        () = trickle => String::new(),
    };
    assert!(!text.contains("200 OK"));
    assert!(started.elapsed() < PATIENCE);
    server.stop().await;
}

#[tokio::test]
async fn idle_connections_of_both_versions_are_closed() {
    let server = TestServer::with(short_limits()).await;
    for alpn in ["http/1.1", "h2"] {
        let mut stream = server.client().tls(alpn).await;
        rest(&mut stream).await;
    }
    let mut stream = server.client().tls("http/1.1").await;
    stream
        .write_all(b"GET /v1 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    server.stop().await;
}

#[tokio::test]
async fn a_body_without_progress_is_given_up() {
    let server = TestServer::with(short_limits()).await;
    let mut stream = server.client().tls("http/1.1").await;
    let head = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        content-length: 100\r\n\r\n{\"user\"";
    stream.write_all(head).await.unwrap();
    let text = rest(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(text.contains("request_timeout"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn a_json_body_that_trickles_is_given_up() {
    let server = TestServer::with(short_limits()).await;
    let stream = server.client().tls("http/1.1").await;
    let (mut read, mut write) = tokio::io::split(stream);
    let trickle = async {
        let head = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
            content-length: 1000\r\n\r\n";
        write.write_all(head).await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if write.write_all(b" ").await.is_err() || write.flush().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let text = tokio::select! {
        text = rest(&mut read) => text,
        () = trickle => String::new(),
    };
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn headers_may_not_be_large_or_many() {
    let server = TestServer::start().await;
    let large = format!(
        "GET /v1 HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "a".repeat(40 << 10)
    );
    let many = format!(
        "GET /v1 HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70 << 10));
    for request in [large, many, long] {
        let mut stream = server.client().tls("http/1.1").await;
        let _ = stream.write_all(request.as_bytes()).await;
        let text = rest(&mut stream).await;
        let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(["431", "414", "400"].contains(&status.as_str()), "{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn large_headers_are_refused_over_http2_as_well() {
    let server = TestServer::start().await;
    let value = "a".repeat(40 << 10);
    let client = server.client().http2();
    let headers = [("x-large", value.as_str())];
    let reply = client
        .send(http::Method::GET, "/v1", &headers, "".into())
        .await;
    assert_eq!(reply.status.as_u16(), 431);
    server.stop().await;
}

#[tokio::test]
async fn an_answer_nobody_takes_is_given_up() {
    let server = TestServer::with(short_limits()).await;
    let mut stream = server.client().tls("http/1.1").await;
    let request = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    // More answers than any socket buffer holds, none of them read.
    let asking =
        async { while stream.write_all(request).await.is_ok() && stream.flush().await.is_ok() {} };
    timeout(PATIENCE, asking)
        .await
        .expect("the server gives up");
    server.stop().await;
}

#[tokio::test]
async fn connections_are_counted_by_peer() {
    let limits = Limits {
        connections_per_peer: 2,
        ..Limits::default()
    };
    let server = TestServer::with(limits).await;
    let first = server.client().tls("http/1.1").await;
    let _second = server.client().tls("http/1.1").await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    rest(&mut third).await;
    drop(first);
    // The place of the first comes free when the server has seen its end.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let mut byte = [0];
        if timeout(Duration::from_millis(100), stream.read(&mut byte))
            .await
            .is_err()
        {
            break;
        }
        assert!(Instant::now() < deadline, "no place comes free");
    }
    server.stop().await;
}
