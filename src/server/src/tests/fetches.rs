//! What a host is asked to fetch.

use serde_json::json;

use super::TestServer;

#[tokio::test]
async fn what_cannot_be_fetched_makes_no_image() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let path = "/v1/images:fetch";
    for (body, pointer) in [
        (
            json!({"url": "ftp://example.org/a", "name": "a", "kind": "disk"}),
            "/url",
        ),
        (
            json!({"url": "https://me:word@example.org/a", "name": "a", "kind": "disk"}),
            "/url",
        ),
        (
            json!({"url": "http://10.0.0.1/a", "name": "A!", "kind": "disk"}),
            "/name",
        ),
        (
            json!({"url": "http://10.0.0.1/a", "name": "a", "kind": "disk", "sha256": "12"}),
            "/sha256",
        ),
        (
            json!({"url": "http://10.0.0.1/a", "name": "a", "kind": "iso", "format": "raw"}),
            "/format",
        ),
    ] {
        let problem = admin.post(path, body).await.problem(400, "invalid_request");
        assert_eq!(problem["pointer"], pointer, "{problem}");
    }
    // The server itself: services there trust whoever reaches them.
    let own = format!("http://{}/", server.address);
    for url in [
        own.as_str(),
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data",
    ] {
        let body = json!({"url": url, "name": "a", "kind": "disk"});
        let waited = format!("{path}?wait=30s");
        let problem = admin.post(&waited, body).await.problem(502, "fetch_failed");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("is not reached from here"), "{problem}");
    }
    let operations = admin.get("/v1/operations").await.expect(200);
    assert_eq!(
        operations["items"][0]["kind"], "image_fetch",
        "{operations}"
    );
    assert_eq!(operations["items"][0]["status"], "failed", "{operations}");
    let images = admin.get("/v1/images").await.expect(200);
    assert_eq!(images["items"], json!([]));

    let machine = json!({"url": own, "name": "a"});
    let problem = admin
        .post("/v1/vms:fetch?wait=30s", machine)
        .await
        .problem(502, "fetch_failed");
    assert!(problem["operation"].is_string(), "{problem}");

    let update = json!({"url": "http://10.0.0.1/a", "restart": false, "guests": "power_off"});
    let problem = admin
        .post("/v1/system:fetch_update?wait=1s", update)
        .await
        .problem(409, "wrong_state");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("ordinary Linux"),
        "{problem}"
    );
    server.stop().await;
}

#[tokio::test]
async fn authorities_are_told_and_forgotten() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let path = "/v1/authorities";
    let made = rcgen::generate_simple_self_signed(vec!["lab".to_owned()]).unwrap();
    let body = json!({"name": "lab", "certificate": made.cert.pem()});
    let reply = admin.post(path, body.clone()).await;
    let added = reply.expect(201);
    assert_eq!(added["name"], "lab", "{added}");
    assert!(added.get("certificate").is_none(), "{added}");
    let problem = admin.post(path, body).await.problem(409, "already_exists");
    assert_eq!(problem["pointer"], "/name", "{problem}");
    let other = json!({"name": "other", "certificate": made.cert.pem()});
    let problem = admin.post(path, other).await.problem(409, "already_exists");
    assert_eq!(problem["pointer"], "/certificate", "{problem}");
    let key = json!({"name": "other", "certificate": made.signing_key.serialize_pem()});
    let problem = admin.post(path, key).await.problem(400, "invalid_request");
    assert_eq!(problem["pointer"], "/certificate", "{problem}");
    let list = admin.get(path).await.expect(200);
    assert_eq!(list["items"], json!([added]), "{list}");
    admin.delete(reply.header("location")).await.expect(204);
    admin
        .delete(reply.header("location"))
        .await
        .problem(404, "not_found");
    let list = admin.get(path).await.expect(200);
    assert_eq!(list["items"], json!([]), "{list}");
    server.stop().await;
}
