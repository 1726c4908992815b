//! HTTP versions, headers of every answer, and the end of the server.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::TestServer;

#[tokio::test]
async fn both_http_versions_and_everybody_may_ask_what_this_is() {
    let server = TestServer::start().await;
    for client in [server.client(), server.client().http2()] {
        let reply = client.get("/v1").await;
        let info = reply.expect(200);
        assert_eq!(info["product"], "lodge");
        assert_eq!(info["authenticated"], false);
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert!(!reply.header("x-request-id").is_empty());
        let page = client.get("/").await;
        page.expect(200);
        assert!(page.header("content-type").starts_with("text/html"));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_document_is_served() {
    let server = TestServer::start().await;
    let document = server.client().get("/v1/openapi.json").await.expect(200);
    assert_eq!(
        document["paths"]["/v1/vms/{vm}:start"]["post"]["operationId"],
        "vm_start"
    );
    server.stop().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = TestServer::start().await;
    let reply = server
        .client()
        .send(Method::HEAD, "/v1", &[], "".into())
        .await;
    reply.expect(200);
    assert!(reply.body.is_empty());
    assert_ne!(reply.header("content-length"), "0");
    server.stop().await;
}

#[tokio::test]
async fn plain_http_gets_a_hint() {
    let server = TestServer::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(text.contains("https://"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let server = TestServer::start().await;
    for garbage in [
        &b"\x16\x03\x01\xff\xff\x00\x00"[..],
        &[0xff; 2000],
        b"\0",
        b"\x80\x2e\x01",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
    }
    server.client().get("/v1").await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn garbage_inside_tls_is_refused() {
    let server = TestServer::start().await;
    for (alpn, garbage) in [
        ("http/1.1", &b"\0\x01\x02\r\n\r\n"[..]),
        ("http/1.1", b"GET /v1 HTTP/9.9\r\n\r\n"),
        (
            "http/1.1",
            b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ),
        (
            "h2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
    ] {
        let mut stream = server.client().tls(alpn).await;
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.windows(4).any(|w| w == b" 200"), "{answer:?}");
    }
    server.client().get("/v1").await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn stopping_lets_idle_connections_go_at_once() {
    let server = TestServer::start().await;
    let mut idle = server.client().tls("http/1.1").await;
    let mut busy = server.client().tls("h2").await;
    let started = tokio::time::Instant::now();
    server.stop().await;
    assert!(started.elapsed() < std::time::Duration::from_secs(7));
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    let _ = busy.read_to_end(&mut rest).await;
}
