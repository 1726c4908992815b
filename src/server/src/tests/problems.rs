//! What is wrong with a request is told by a problem.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::TestServer;

#[tokio::test]
async fn unknown_paths_and_wrong_methods() {
    let server = TestServer::start().await;
    let client = server.client();
    for path in [
        "/nothing",
        "/v2",
        "/v1/",
        "/v1/vms/a:fly",
        "/v1/vms/a/:start",
        "/v1/vms/:start",
        "//",
        "/v1/vms/a/b",
    ] {
        client.get(path).await.problem(404, "not_found");
    }
    let reply = client.delete("/v1/vms").await;
    reply.problem(405, "method_not_allowed");
    let mut allowed: Vec<&str> = reply.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let reply = client.get("/v1/vms/a:start").await;
    reply.problem(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), "POST");
    let reply = client
        .send(Method::POST, "/v1/vms/a", &[], Bytes::new())
        .await;
    reply.problem(405, "method_not_allowed");
    server.stop().await;
}

#[tokio::test]
async fn methods_with_a_privilege_need_a_login() {
    let server = TestServer::start().await;
    for client in [
        server.client(),
        server.client().token("guessed"),
        server.client().http2().token(""),
    ] {
        for path in [
            "/v1/system",
            "/v1/vms",
            "/v1/vms/a",
            "/metrics",
            "/v1/events",
            "/v1/vms/a/console",
            "/v1/vms/a/vsock?port=1",
        ] {
            let reply = client.get(path).await;
            reply.problem(401, "unauthorized");
            assert!(reply.header("www-authenticate").starts_with("Bearer"));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_everywhere() {
    let server = TestServer::start().await;
    for path in ["/?a=1", "/v1?a=1", "/v1/openapi.json?%61", "/v1?&&a"] {
        let problem = server
            .client()
            .get(path)
            .await
            .problem(400, "invalid_request");
        assert_eq!(problem["pointer"], "?a");
    }
    server.client().get("/v1?").await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn bad_json_is_described() {
    let server = TestServer::start().await;
    let client = server.client();
    let send = async |kind: &str, body: &str| {
        let headers = [("content-type", kind)];
        client
            .send(
                Method::POST,
                "/v1/sessions",
                &headers,
                body.to_owned().into(),
            )
            .await
    };
    let json = "application/json";
    let problem = send(json, "{\"user\": \"a\",\n \"password\": }")
        .await
        .problem(400, "invalid_request");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("line 2 column 14"),
        "{problem}"
    );
    let problem = send(json, r#"{"user":"a","password":"b","admin":true}"#)
        .await
        .problem(400, "invalid_request");
    assert_eq!(problem["pointer"], "/admin");
    let problem = send(json, r#"{"user":"a","password":7}"#)
        .await
        .problem(400, "invalid_request");
    assert_eq!(problem["pointer"], "/password");
    send(json, "").await.problem(400, "invalid_request");
    send("text/plain", "{}")
        .await
        .problem(415, "unsupported_media_type");
    let large = format!("{{\"user\":\"{}\"}}", "a".repeat(8 << 10));
    send(json, &large).await.problem(413, "payload_too_large");
    server.stop().await;
}

#[tokio::test]
async fn an_oversize_body_is_refused_while_it_is_sent() {
    let server = TestServer::start().await;
    for client in [server.client(), server.client().http2()] {
        let body = Bytes::from(vec![b' '; 3 << 20]);
        let headers = [("content-type", "application/json")];
        let reply = client
            .send(Method::POST, "/v1/sessions", &headers, body)
            .await;
        reply.problem(413, "payload_too_large");
    }
    server.stop().await;
}

#[tokio::test]
async fn json_of_any_shape_is_answered() {
    let server = TestServer::start().await;
    let client = server.client();
    for body in [
        json!(null),
        json!([]),
        json!("x"),
        json!(1e300),
        json!({"user": {}}),
        json!([[[[]]]]),
    ] {
        client
            .post("/v1/sessions", body)
            .await
            .problem(400, "invalid_request");
    }
    server.stop().await;
}
