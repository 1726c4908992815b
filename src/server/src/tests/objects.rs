//! Objects: creating, reading, changing under conditions, deleting.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

use super::TestServer;
use super::client::Client;
use super::sockets::{bearer, open};

fn spec(name: &str) -> Value {
    json!({"name": name, "boot": {"kernel": "linux"}})
}

/// An ELF file as short as the manager takes for a kernel.
async fn with_kernel(server: &TestServer) -> Client {
    let admin = server.login().await;
    let headers = [("content-type", "application/octet-stream")];
    let path = "/v1/images?name=linux&kind=kernel";
    let reply = admin
        .send(Method::POST, path, &headers, super::kernel())
        .await;
    reply.expect(201);
    admin
}

#[tokio::test]
async fn a_guest_from_creation_to_deletion() {
    let server = TestServer::start().await;
    let admin = with_kernel(&server).await;
    let reply = admin.post("/v1/vms", spec("web-1")).await;
    let vm = reply.expect(201);
    assert_eq!(reply.header("location"), "/v1/vms/web-1");
    assert_eq!(vm["status"]["state"], "stopped");
    assert_eq!(vm["memory"], 512 << 20);
    let etag = reply.header("etag").to_owned();
    assert_eq!(etag, format!("\"{}\"", vm["revision"]));
    admin
        .post("/v1/vms", spec("web-1"))
        .await
        .problem(409, "already_exists");
    let by_id = format!("/v1/vms/{}", vm["id"].as_str().unwrap());
    assert_eq!(admin.get(&by_id).await.expect(200)["name"], "web-1");
    let patch = admin
        .json(
            Method::PATCH,
            "/v1/vms/web-1",
            &[("if-match", &etag)],
            json!({"vcpus": 2}),
        )
        .await;
    assert_eq!(patch.expect(200)["vcpus"], 2);
    assert_ne!(patch.header("etag"), etag);
    // The old tag is stale now, for every kind of change.
    let stale = [("if-match", etag.as_str())];
    for method in [Method::PATCH, Method::PUT, Method::DELETE] {
        let reply = admin
            .json(method, "/v1/vms/web-1", &stale, spec("web-1"))
            .await;
        reply.problem(412, "precondition_failed");
    }
    let now = admin.get("/v1/vms/web-1").await;
    assert_eq!(now.header("etag"), patch.header("etag"));
    let list = admin
        .get("/v1/vms?filter=name%20eq%20web-1&limit=1")
        .await
        .expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    admin.delete("/v1/vms/web-1").await.expect(204);
    admin.get("/v1/vms/web-1").await.problem(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_guest_is_named_and_changes_nothing() {
    let server = TestServer::start().await;
    let admin = with_kernel(&server).await;
    for (body, pointer) in [
        (
            json!({"name": "a", "boot": {"kernel": "linux"}, "cpus": 2}),
            "/cpus",
        ),
        (
            json!({"name": "a", "boot": {"kernel": "linux"}, "vcpus": 65}),
            "/vcpus",
        ),
        (
            json!({"name": "a", "boot": {"kernel": "none-such"}}),
            "/boot/kernel",
        ),
        (json!({"name": "A", "boot": {"kernel": "linux"}}), "/name"),
    ] {
        let reply = admin.post("/v1/vms", body).await;
        assert_eq!(reply.status.as_u16() / 100, 4);
        assert_eq!(reply.json()["pointer"], pointer, "{}", reply.json());
    }
    let list = admin.get("/v1/vms").await.expect(200);
    assert_eq!(list["items"], json!([]));
    let merge = [("content-type", "application/merge-patch+json")];
    let send = |body: &'static str| {
        admin.send(
            Method::PATCH,
            "/v1/vms/a",
            &merge,
            Bytes::from_static(body.as_bytes()),
        )
    };
    send("[]").await.problem(400, "invalid_request");
    send("{}").await.problem(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn uefi_variables_are_named_in_the_path() {
    let server = TestServer::start().await;
    let admin = with_kernel(&server).await;
    admin.post("/v1/vms", spec("web")).await.expect(201);
    let all = "/v1/vms/web/nvram";
    admin.get(all).await.problem(409, "wrong_state");
    admin.delete(all).await.problem(409, "wrong_state");
    let guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let put = async |variable: &str, body: Value| {
        let path = format!("{all}/{variable}");
        admin.json(Method::PUT, &path, &[], body).await
    };
    for name in ["BootOrder", "Attempt%201", "A%3Ab"] {
        let reply = put(&format!("{name}-{guid}"), json!({"data": "0000"})).await;
        reply.problem(409, "wrong_state");
    }
    let reply = put("BootOrder", json!({"data": "0000"})).await;
    let hint = reply.problem(400, "invalid_request")["hint"].clone();
    assert!(hint.as_str().unwrap().contains("GUID"), "{hint}");
    let largest = "00".repeat(32 << 10);
    let reply = put(&format!("A-{guid}"), json!({"data": largest})).await;
    reply.problem(409, "wrong_state");
    let reply = put(&format!("A-{guid}"), json!({"data": "0"})).await;
    assert_eq!(reply.problem(400, "invalid_request")["pointer"], "/data");
    server.stop().await;
}

#[tokio::test]
async fn a_guest_is_asked_for_memory_only_while_it_runs() {
    let server = TestServer::start().await;
    let admin = with_kernel(&server).await;
    admin.post("/v1/vms", spec("web")).await.expect(201);
    let ask = async |body: Value| admin.post("/v1/vms/web:balloon", body).await;
    let problem = ask(json!({"target": "256MiB"}))
        .await
        .problem(409, "wrong_state");
    assert_eq!(problem["hint"], "start it first");
    for (body, pointer) in [
        (json!({"target": "1MiB"}), "/target"),
        (json!({"target": "1GiB"}), "/target"),
        (json!({"target": (256 << 20) + 5}), "/target"),
        (json!({"target": "256MiB", "size": 1}), "/size"),
    ] {
        let problem = ask(body).await.problem(400, "invalid_request");
        assert_eq!(problem["pointer"], pointer);
    }
    ask(json!({})).await.problem(400, "invalid_request");
    let other = json!({"target": "256MiB"});
    admin
        .post("/v1/vms/db:balloon", other)
        .await
        .problem(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn readers_who_have_it_are_told_so() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let first = admin.get("/v1/users/admin").await;
    first.expect(200);
    let known = [("if-none-match", first.header("etag"))];
    let again = admin
        .send(Method::GET, "/v1/users/admin", &known, Bytes::new())
        .await;
    assert_eq!(again.status.as_u16(), 304);
    assert!(again.body.is_empty());
    let other = [("if-none-match", "\"0\"")];
    admin
        .send(Method::GET, "/v1/users/admin", &other, Bytes::new())
        .await
        .expect(200);
    server.stop().await;
}

#[tokio::test]
async fn operations_can_be_waited_for() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let disk = json!({"name": "data", "size": "4MiB"});
    admin
        .post("/v1/disks?wait=soon", disk.clone())
        .await
        .problem(400, "invalid_request");
    admin.get("/v1/disks/data").await.problem(404, "not_found");
    let reply = admin.post("/v1/disks?wait=30s", disk.clone()).await;
    let operation = reply.expect(200);
    assert_eq!(operation["status"], "succeeded");
    assert_eq!(operation["target"], "/v1/disks/data");
    let location = reply.header("location");
    assert_eq!(admin.get(location).await.expect(200)["id"], operation["id"]);
    assert_eq!(
        admin.get("/v1/disks/data").await.expect(200)["size"],
        4 << 20
    );
    admin
        .post("/v1/disks", disk)
        .await
        .problem(409, "already_exists");
    let reply = admin
        .post("/v1/disks", json!({"name": "more", "size": "4MiB"}))
        .await;
    reply.expect(202);
    let waited = format!("{}?wait=30s", reply.header("location"));
    assert_eq!(admin.get(&waited).await.expect(200)["status"], "succeeded");
    admin
        .delete(reply.header("location"))
        .await
        .problem(409, "wrong_state");
    admin
        .get("/v1/operations/x")
        .await
        .problem(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn nobody_connects_to_guests_that_do_not_run() {
    let server = TestServer::start().await;
    with_kernel(&server).await;
    let (admin, token) = server.login_with_token().await;
    admin.post("/v1/vms", spec("a")).await.expect(201);
    admin
        .get("/v1/vms/a/vsock?port=1024")
        .await
        .problem(400, "invalid_request");
    let value = bearer(&token);
    let headers = [("authorization", value.as_str())];
    for (query, status) in [
        ("port=1024", 409),
        ("port=4294967295", 400),
        ("port=4294967296", 400),
        ("port=-1", 400),
        ("", 400),
    ] {
        let path = format!("/v1/vms/a/vsock?{query}");
        let Err(Error::Http(answer)) = open(&admin, &path, &headers).await else {
            panic!("{query}");
        };
        assert_eq!(answer.status(), status, "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn guests_without_a_running_monitor_have_no_console() {
    let server = TestServer::start().await;
    let admin = with_kernel(&server).await;
    admin.post("/v1/vms", spec("a")).await.expect(201);
    admin
        .get("/v1/vms/a/console")
        .await
        .problem(400, "invalid_request");
    admin
        .post("/v1/vms/a:pause", json!({}))
        .await
        .problem(409, "wrong_state");
    admin
        .post("/v1/vms/b:start", json!({}))
        .await
        .problem(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn the_host_shows_itself() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let system = admin.get("/v1/system").await.expect(200);
    assert_eq!(system["versions"]["api"], "v1");
    admin
        .get("/v1/system/log?level=debug&limit=10")
        .await
        .expect(200);
    let problem = admin
        .get("/v1/system/log?levle=debug")
        .await
        .problem(400, "invalid_request");
    assert_eq!(problem["pointer"], "?levle");
    let metrics = admin.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(metrics.body.ends_with(b"# EOF\n"));
    let change = |body| admin.json(Method::PATCH, "/v1/system", &[], body);
    let problem = change(json!({"hostname": "-"}))
        .await
        .problem(400, "invalid_request");
    assert_eq!(problem["pointer"], "/hostname");
    change(json!({"hostname": "other"}))
        .await
        .problem(409, "wrong_state");
    change(json!({})).await.expect(200);
    admin
        .post("/v1/system:shutdown", json!({}))
        .await
        .problem(409, "wrong_state");
    server.stop().await;
}
