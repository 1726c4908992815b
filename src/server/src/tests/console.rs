//! The WebSockets of consoles, screens and connections, with a socket pair in the place of a guest.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use futures_util::{SinkExt, StreamExt};
use lodge_api::privilege::Privilege;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::TestServer;
use super::sockets::{Socket, bearer, open};
use crate::app::App;
use crate::auth::Authenticated;
use crate::limits::Limits;
use crate::route::{Access, get};
use crate::routes::carry::{Kind, attach};
use crate::routes::table;
use crate::wire::reply::Answer;

const PATIENCE: Duration = Duration::from_secs(30);

/// A server, a guest's end of its console, and the client's.
async fn connected() -> (TestServer, UnixStream, Socket) {
    connected_by(Kind::Console).await
}

async fn connected_by(kind: Kind) -> (TestServer, UnixStream, Socket) {
    let (ours, guest) = UnixStream::pair().unwrap();
    let ours = Arc::new(Mutex::new(Some(ours)));
    let handler = move |State(app): State<App>, who: Authenticated, upgrade: WebSocketUpgrade| {
        let guest = ours.lock().unwrap().take().expect("one console");
        async move { Answer::Ok(attach(app, who, upgrade, guest, kind)) }
    };
    let access = Access::Needs(Privilege::SystemRead);
    let mut methods = table();
    methods.push(get("/console", access, "test_console", handler));
    let server = TestServer::with_table(methods, Limits::default()).await;
    let token = server.manager.local_token();
    let (name, value) = match kind {
        // As viewers in browsers do.
        Kind::Screen => ("sec-websocket-protocol", format!("binary, bearer.{token}")),
        Kind::Console | Kind::Connection => ("authorization", bearer(token)),
    };
    let headers = [(name, value.as_str())];
    let socket = open(&server.client(), "/console", &headers).await.unwrap();
    (server, guest, socket)
}

/// The next bytes, whatever else comes between.
async fn bytes(socket: &mut Socket) -> Vec<u8> {
    loop {
        let message = timeout(PATIENCE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if let Message::Binary(bytes) = message {
            return bytes.into();
        }
    }
}

async fn close_code(socket: &mut Socket) -> CloseCode {
    loop {
        let message = timeout(PATIENCE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if let Message::Close(frame) = message {
            return frame.unwrap().code;
        }
    }
}

#[tokio::test]
async fn bytes_go_both_ways_until_the_guest_ends() {
    let (server, mut guest, mut socket) = connected().await;
    guest.write_all(b"login: \xff").await.unwrap();
    assert_eq!(bytes(&mut socket).await, b"login: \xff");
    socket
        .send(Message::Binary(vec![0, 3, 255].into()))
        .await
        .unwrap();
    socket.send(Message::text("ls\n")).await.unwrap();
    let mut typed = [0; 6];
    timeout(PATIENCE, guest.read_exact(&mut typed))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&typed, b"\0\x03\xffls\n");
    guest.write_all(b"bye").await.unwrap();
    drop(guest);
    assert_eq!(bytes(&mut socket).await, b"bye");
    assert_eq!(close_code(&mut socket).await, CloseCode::Normal);
    server.stop().await;
}

#[tokio::test]
async fn viewers_in_browsers_speak_a_protocol_of_their_own() {
    let (server, mut guest, mut socket) = connected_by(Kind::Screen).await;
    guest.write_all(b"RFB 003.008\n").await.unwrap();
    assert_eq!(bytes(&mut socket).await, b"RFB 003.008\n");
    drop(guest);
    assert_eq!(close_code(&mut socket).await, CloseCode::Normal);
    server.stop().await;
}

#[tokio::test]
async fn the_directions_of_a_connection_end_one_by_one() {
    let (server, mut guest, mut socket) = connected_by(Kind::Connection).await;
    socket
        .send(Message::Binary(b"question".as_slice().into()))
        .await
        .unwrap();
    socket
        .send(Message::Binary(Vec::new().into()))
        .await
        .unwrap();
    let mut heard = Vec::new();
    let reading = guest.read_to_end(&mut heard);
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert_eq!(heard, b"question");
    guest.write_all(b"answer").await.unwrap();
    assert_eq!(bytes(&mut socket).await, b"answer");
    // What comes too late is dropped, and what the guest still says is not.
    socket
        .send(Message::Binary(b"more".as_slice().into()))
        .await
        .unwrap();
    guest.write_all(b"bye").await.unwrap();
    drop(guest);
    assert_eq!(bytes(&mut socket).await, b"bye");
    assert_eq!(close_code(&mut socket).await, CloseCode::Normal);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_console() {
    let (server, mut guest, socket) = connected().await;
    drop(socket);
    let mut rest = Vec::new();
    timeout(PATIENCE, guest.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nothing_but_a_bounded_rest() {
    let (server, mut guest, socket) = connected().await;
    let chunk = vec![b'x'; 1 << 20];
    // The monitor never waits for a console, it drops; here it waits, to see that nobody takes more.
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), guest.write(&chunk)).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "output piles up somewhere");
    }
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_closes_consoles_and_leaves_the_guest() {
    let (server, mut guest, mut socket) = connected().await;
    guest.write_all(b"$ ").await.unwrap();
    assert_eq!(bytes(&mut socket).await, b"$ ");
    server.stop.cancel();
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
    server.stop().await;
}
