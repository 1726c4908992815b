//! Screenshots and typing, as far as they go without a guest that runs.

use serde_json::{Value, json};

use tokio_tungstenite::tungstenite::Error;

use super::TestServer;
use super::client::Client;
use super::sockets::{bearer, open};

const SCREEN: &str = "/v1/vms/web/screenshot";
const VNC: &str = "/v1/vms/web/vnc";
const TYPE: &str = "/v1/vms/web:type";
const POINTER: &str = "/v1/vms/web:pointer";

async fn server(boot: Value) -> (TestServer, Client) {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let headers = [("content-type", "application/octet-stream")];
    let path = "/v1/images?name=linux&kind=kernel";
    let upload = admin.send(http::Method::POST, path, &headers, super::kernel());
    upload.await.expect(201);
    let spec = json!({"name": "web", "boot": boot});
    admin.post("/v1/vms", spec).await.expect(201);
    (server, admin)
}

#[tokio::test]
async fn a_guest_must_run() {
    let (server, admin) = server(json!({"firmware": "bios"})).await;
    for reply in [
        admin.get(SCREEN).await,
        admin.post(TYPE, json!({"text": "root\n"})).await,
        admin.post(POINTER, json!({"x": 1, "y": 2})).await,
    ] {
        let problem = reply.problem(409, "wrong_state");
        assert!(problem["detail"].as_str().unwrap().contains("is stopped"));
        assert_eq!(problem["hint"], "start it first");
    }
    let missing = admin.get("/v1/vms/nobody/screenshot").await;
    missing.problem(404, "not_found");
    let missing = admin
        .post("/v1/vms/nobody:type", json!({"text": "a"}))
        .await;
    missing.problem(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn a_guest_must_have_firmware() {
    let (server, admin) = server(json!({"kernel": "linux"})).await;
    for reply in [
        admin.get(SCREEN).await,
        admin.post(TYPE, json!({"text": "root\n"})).await,
        admin.post(POINTER, json!({"x": 1, "y": 2})).await,
    ] {
        let problem = reply.problem(409, "wrong_state");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("only guests with firmware"), "{detail}");
        assert!(problem["hint"].as_str().unwrap().contains("console"));
    }
    server.stop().await;
}

#[tokio::test]
async fn viewers_hear_what_is_in_their_way() {
    let (server, admin) = server(json!({"firmware": "bios"})).await;
    let (_, token) = server.login_with_token().await;
    let value = bearer(&token);
    for (path, status, hint) in [
        (VNC, 409, "start it first"),
        ("/v1/vms/nobody/vnc", 404, ""),
    ] {
        match open(&admin, path, &[("authorization", value.as_str())]).await {
            Err(Error::Http(answer)) => {
                assert_eq!(answer.status().as_u16(), status);
                let body = answer.into_body().unwrap_or_default();
                assert!(String::from_utf8_lossy(&body).contains(hint));
            }
            other => panic!("{other:?}"),
        }
    }
    let plain = admin.get(VNC).await;
    plain.problem(400, "invalid_request");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_typed_is_pointed_at() {
    let (server, admin) = server(json!({"firmware": "bios"})).await;
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"text": "a", "keys": ["b"]}), "/keys"),
        (json!({"text": "naïve"}), "/text"),
        (json!({"text": "x".repeat(1025)}), "/text"),
        (json!({"text": 7}), "/text"),
        (json!({"keys": ["enter", 7]}), "/keys/1"),
        (json!({"key": "enter"}), "/key"),
        (json!({"keys": ["enter", "f2", "hyper-x"]}), "/keys/2"),
    ] {
        let reply = admin.post(TYPE, body.clone()).await;
        let problem = reply.problem(400, "invalid_request");
        assert_eq!(problem["pointer"], pointer, "{body}");
    }
    let reply = admin.post(TYPE, json!({"keys": ["any"]})).await;
    let problem = reply.problem(400, "invalid_request");
    let hint = problem["hint"].as_str().unwrap();
    assert!(hint.contains("esc, ") && hint.contains("f12"), "{hint}");
    server.stop().await;
}

#[tokio::test]
async fn a_pointer_needs_a_place_and_a_button_that_exists() {
    let (server, admin) = server(json!({"firmware": "bios"})).await;
    for (body, pointer) in [
        (json!({"x": 1}), ""),
        (json!({"x": 1, "y": -1}), "/y"),
        (json!({"x": 0.5, "y": 1}), "/x"),
        (json!({"x": 1, "y": 1, "click": "fourth"}), "/click"),
        (json!({"x": 1, "y": 1, "buttons": 1}), "/buttons"),
    ] {
        let reply = admin.post(POINTER, body.clone()).await;
        let problem = reply.problem(400, "invalid_request");
        assert_eq!(problem["pointer"], pointer, "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn viewers_neither_see_nor_type() {
    let (server, admin) = server(json!({"firmware": "bios"})).await;
    let viewer = json!({"name": "eve", "password": "correct horse battery", "role": "viewer"});
    admin.post("/v1/users", viewer).await.expect(201);
    let eve = server.login_as("eve", "correct horse battery").await;
    eve.get(SCREEN).await.problem(403, "forbidden");
    eve.get(VNC).await.problem(403, "forbidden");
    let reply = eve.post(TYPE, json!({"text": "a"})).await;
    reply.problem(403, "forbidden");
    let reply = eve.post(POINTER, json!({"x": 1, "y": 1})).await;
    reply.problem(403, "forbidden");
    server.stop().await;
}
