//! WebSockets: events, and how sockets end.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::client::Client;
use super::{TestServer, short_limits};

/// Long enough for anything that is to come, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

pub async fn open(client: &Client, path: &str, headers: &[(&str, &str)]) -> Result<Socket, Error> {
    let mut request: Request<()> = format!("wss://{}{path}", client.authority())
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::try_from(*name).unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let stream = client.tls("http/1.1").await;
    client_async(request, stream)
        .await
        .map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Message {
    let message = timeout(PATIENCE, socket.next()).await;
    message
        .expect("a message comes")
        .expect("the socket is open")
        .unwrap()
}

/// The next event, whatever else comes between.
async fn event(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = next(socket).await {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn make_user(client: &Client, name: &str) {
    let user = json!({"name": name, "password": "correct horse", "role": "viewer"});
    client.post("/v1/users", user).await.expect(201);
}

#[tokio::test]
async fn events_are_replayed_and_go_on_without_a_hole() {
    let server = TestServer::start().await;
    let (admin, token) = server.login_with_token().await;
    make_user(&admin, "one").await;
    make_user(&admin, "two").await;
    let page = admin
        .get("/v1/events?since=0&types=object")
        .await
        .expect(200);
    let past = page["items"].as_array().unwrap().clone();
    assert!(past.len() >= 2);
    let headers = [("authorization", bearer(&token))];
    let headers = [(headers[0].0, headers[0].1.as_str())];
    let mut socket = open(&admin, "/v1/events?since=0&types=object", &headers)
        .await
        .unwrap();
    for expected in &past {
        assert_eq!(&event(&mut socket).await, expected);
    }
    make_user(&admin, "three").await;
    let new = event(&mut socket).await;
    assert_eq!(new["target"], "/v1/users/three");
    assert_eq!(new["change"], "created");
    let last = past.last().unwrap()["sequence"].as_u64().unwrap();
    assert!(new["sequence"].as_u64().unwrap() > last);
    // Whoever comes back with what it has seen gets the rest and nothing twice.
    let path = format!(
        "/v1/events?types=object&since={last}&epoch={}",
        new["epoch"].as_str().unwrap()
    );
    let mut again = open(&admin, &path, &headers).await.unwrap();
    assert_eq!(event(&mut again).await, new);
    server.stop().await;
}

#[tokio::test]
async fn browsers_log_in_by_subprotocol() {
    let server = TestServer::start().await;
    let (admin, token) = server.login_with_token().await;
    let protocols = format!("lodge, bearer.{token}");
    let headers = [("sec-websocket-protocol", protocols.as_str())];
    let mut socket = open(&admin, "/v1/events", &headers).await.unwrap();
    make_user(&admin, "one").await;
    event(&mut socket).await;
    for headers in [
        &[][..],
        &[("sec-websocket-protocol", "lodge, bearer.guessed")],
        &[("authorization", "Bearer guessed")],
    ] {
        match open(&admin, "/v1/events", headers).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), StatusCode::UNAUTHORIZED),
            other => panic!("{other:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn other_pages_cannot_open_a_socket_by_cookie() {
    let server = TestServer::start().await;
    let (admin, token) = server.login_with_token().await;
    let cookie = format!("__Host-lodge={token}");
    let own = format!("https://{}", admin.authority());
    let forged = [
        ("cookie", cookie.as_str()),
        ("origin", "https://evil.example"),
    ];
    match open(&admin, "/v1/events", &forged).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), StatusCode::FORBIDDEN),
        other => panic!("{other:?}"),
    }
    let honest = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    open(&admin, "/v1/events", &honest).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let server = TestServer::start().await;
    let (admin, token) = server.login_with_token().await;
    let value = bearer(&token);
    let mut socket = open(&admin, "/v1/events", &[("authorization", &value)])
        .await
        .unwrap();
    server.stop.cancel();
    loop {
        if let Message::Close(frame) = next(&mut socket).await {
            assert_eq!(frame.unwrap().code, CloseCode::Away);
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_socket_ends_with_its_session() {
    let server = TestServer::with(short_limits()).await;
    let (admin, token) = server.login_with_token().await;
    let value = bearer(&token);
    let mut socket = open(&admin, "/v1/events", &[("authorization", &value)])
        .await
        .unwrap();
    // Well after the time in which a silent peer is given up: answering pings is enough to stay.
    let stay = tokio::time::Instant::now() + short_limits().silence * 2;
    while tokio::time::Instant::now() < stay {
        assert!(!matches!(next(&mut socket).await, Message::Close(_)));
    }
    admin.delete("/v1/sessions/current").await.expect(204);
    loop {
        if let Message::Close(frame) = next(&mut socket).await {
            assert_eq!(frame.unwrap().code, CloseCode::Policy);
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_answers_nothing_is_given_up() {
    let server = TestServer::with(short_limits()).await;
    let value = bearer(server.manager.local_token());
    let mut stream = server.client().tls("http/1.1").await;
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: {value}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = end.expect("the server closes the connection");
    assert!(bytes.starts_with(b"HTTP/1.1 101 "));
    server.stop().await;
}

#[tokio::test]
async fn large_messages_end_the_socket_and_nothing_else() {
    let server = TestServer::start().await;
    let (admin, token) = server.login_with_token().await;
    let value = bearer(&token);
    let mut socket = open(&admin, "/v1/events", &[("authorization", &value)])
        .await
        .unwrap();
    let _ = socket.send(Message::Binary(vec![0; 1 << 20].into())).await;
    loop {
        match timeout(PATIENCE, socket.next()).await.unwrap() {
            None | Some(Err(_) | Ok(Message::Close(_))) => break,
            Some(Ok(_)) => {}
        }
    }
    admin.get("/v1/vms").await.expect(200);
    server.stop().await;
}
