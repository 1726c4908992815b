//! Images are streamed, checked, and stored whole or not at all.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, Reply};
use super::{TestServer, kernel, short_limits};

const BINARY: (&str, &str) = ("content-type", "application/octet-stream");

async fn upload(client: &Client, query: &str, content: Bytes) -> Reply {
    let path = format!("/v1/images?{query}");
    client.send(Method::POST, &path, &[BINARY], content).await
}

async fn assert_no_image(client: &Client) {
    let list = client.get("/v1/images").await.expect(200);
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn over_both_http_versions() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let content = Bytes::from(vec![7; 3 << 20]);
    let sum: String = Sha256::digest(&content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    for (name, client) in [("one", admin.clone()), ("two", admin.clone().http2())] {
        let query = format!("name={name}&kind=disk&sha256={sum}");
        let reply = upload(&client, &query, content.clone()).await;
        let image = reply.expect(201);
        assert_eq!(reply.header("location"), format!("/v1/images/{name}"));
        assert_eq!(image["sha256"], sum);
        assert_eq!(image["size"], 3 << 20);
    }
    upload(&admin, "name=one&kind=disk", content)
        .await
        .problem(409, "already_exists");
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_leaves_nothing() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let sum = "0".repeat(64);
    let query = format!("name=a&kind=kernel&sha256={sum}");
    upload(&admin, &query, kernel())
        .await
        .problem(400, "checksum_mismatch");
    let jpeg = Bytes::from_static(b"\xff\xd8\xff\xe0\0\x10JFIF\0 and so on");
    upload(&admin, "name=a&kind=kernel", jpeg)
        .await
        .problem(400, "invalid_content");
    for (query, pointer) in [
        ("kind=disk", "?name"),
        ("name=a", "?kind"),
        ("name=a&kind=floppy", "?kind"),
        ("name=A!&kind=disk", "?name"),
        ("name=a&kind=disk&sha256=123", "?sha256"),
        ("name=a&kind=disk&size=1", "?size"),
    ] {
        let problem = upload(&admin, query, kernel())
            .await
            .problem(400, "invalid_request");
        assert_eq!(problem["pointer"], pointer);
    }
    let form = [("content-type", "multipart/form-data; boundary=x")];
    let path = "/v1/images?name=a&kind=disk";
    let reply = admin.send(Method::POST, path, &form, kernel()).await;
    reply.problem(415, "unsupported_media_type");
    assert_no_image(&admin).await;
    server.stop().await;
}

/// The start of an upload of `length` bytes, of which some are sent.
fn part(token: &str, length: usize) -> Vec<u8> {
    let head = format!(
        "POST /v1/images?name=a&kind=disk HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &[1; 70_000]].concat()
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing() {
    let server = TestServer::start().await;
    let (admin, token) = server.login_with_token().await;
    let mut stream = admin.tls("http/1.1").await;
    stream.write_all(&part(&token, 1 << 20)).await.unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    assert_no_image(&admin).await;
    // The name is free again as soon as the server has noticed.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while upload(&admin, "name=a&kind=disk", Bytes::from(vec![0; 4096]))
        .await
        .status
        != 201
    {
        assert!(tokio::time::Instant::now() < deadline);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_pauses_too_long_is_given_up() {
    let server = TestServer::with(short_limits()).await;
    let (admin, token) = server.login_with_token().await;
    let mut stream = admin.tls("http/1.1").await;
    stream.write_all(&part(&token, 1 << 20)).await.unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert_no_image(&admin).await;
    server.stop().await;
}

#[tokio::test]
async fn a_refused_upload_is_told_why_before_it_is_over() {
    let server = TestServer::start().await;
    let stream = server.client().tls("http/1.1").await;
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        // A gibibyte announced; nobody is logged in.
        let _ = write.write_all(&part("guessed", 1 << 30)).await;
        while write.write_all(&[1; 16 << 10]).await.is_ok() {}
    };
    let mut bytes = Vec::new();
    let reading = async {
        let _ = read.read_to_end(&mut bytes).await;
    };
    tokio::join!(sending, reading);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
    server.stop().await;
}
