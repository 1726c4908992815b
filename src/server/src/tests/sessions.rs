//! Logging in, roles, cookies and forged requests.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::TestServer;

#[tokio::test]
async fn a_session_from_login_to_logout() {
    let server = TestServer::start().await;
    let client = server.client();
    let login = json!({"user": "admin", "password": server.password()});
    let reply = client.post("/v1/sessions", login).await;
    let session = reply.expect(201);
    assert_eq!(reply.header("location"), "/v1/sessions/current");
    assert_eq!(session["role"], "administrator");
    let cookie = reply.header("set-cookie");
    for part in [
        "__Host-lodge=",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let client = client.token(session["token"].as_str().unwrap());
    let who = client.get("/v1/sessions/current").await.expect(200);
    assert_eq!(who["user"], "admin");
    assert!(
        who["privileges"]
            .as_array()
            .unwrap()
            .contains(&json!("user_manage"))
    );
    assert_eq!(client.get("/v1").await.expect(200)["authenticated"], true);
    client.delete("/v1/sessions/current").await.expect(204);
    client
        .get("/v1/sessions/current")
        .await
        .problem(401, "unauthorized");
    assert_eq!(client.get("/v1").await.expect(200)["authenticated"], false);
    server.stop().await;
}

#[tokio::test]
async fn wrong_passwords_are_refused_and_slowed_down() {
    let server = TestServer::start().await;
    let client = server.client();
    let wrong = json!({"user": "admin", "password": "not the password"});
    let unknown = json!({"user": "nobody-here", "password": "not the password"});
    let first = client
        .post("/v1/sessions", wrong.clone())
        .await
        .problem(401, "unauthorized");
    let second = client
        .post("/v1/sessions", unknown)
        .await
        .problem(401, "unauthorized");
    assert_eq!(first["detail"], second["detail"], "users can be told apart");
    for _ in 0..20 {
        let reply = client.post("/v1/sessions", wrong.clone()).await;
        if reply.status == 429 {
            let problem = reply.problem(429, "too_many_requests");
            let seconds: u32 = reply.header("retry-after").parse().unwrap();
            assert!(seconds >= 1, "{problem}");
            // The right password waits as well, or the throttle would tell when a guess is right.
            let right = json!({"user": "admin", "password": server.password()});
            client
                .post("/v1/sessions", right)
                .await
                .problem(429, "too_many_requests");
            server.stop().await;
            return;
        }
        reply.problem(401, "unauthorized");
    }
    panic!("never slowed down");
}

#[tokio::test]
async fn roles_bound_what_may_be_done() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let create = json!({"name": "eve", "password": "correct horse", "role": "viewer"});
    let reply = admin.post("/v1/users", create).await;
    reply.expect(201);
    assert_eq!(reply.header("location"), "/v1/users/eve");
    let eve = server.login_as("eve", "correct horse").await;
    eve.get("/v1/vms").await.expect(200);
    eve.get("/metrics").await.expect(200);
    let vm = json!({"name": "a", "boot": {"kernel": "k"}});
    let problem = eve.post("/v1/vms", vm).await.problem(403, "forbidden");
    assert!(
        problem["detail"].as_str().unwrap().contains("vm_configure"),
        "{problem}"
    );
    eve.get("/v1/users").await.problem(403, "forbidden");
    eve.post("/v1/system:reboot", json!({}))
        .await
        .problem(403, "forbidden");
    // Everybody changes the own password, nobody else's, and nothing but it.
    let patch = |body| eve.json(Method::PATCH, "/v1/users/eve", &[], body);
    patch(json!({"role": "administrator"}))
        .await
        .problem(403, "forbidden");
    let other = json!({"password": "mine from now on"});
    eve.json(Method::PATCH, "/v1/users/admin", &[], other)
        .await
        .problem(403, "forbidden");
    patch(json!({"password": "battery staple"}))
        .await
        .expect(200);
    server.login_as("eve", "battery staple").await;
    admin.delete("/v1/users/eve").await.expect(204);
    server.stop().await;
}

#[tokio::test]
async fn tokens_work_until_they_are_deleted() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let reply = admin
        .post("/v1/tokens", json!({"name": "backup", "role": "viewer"}))
        .await;
    let token = reply.expect(201);
    let program = server.client().token(token["secret"].as_str().unwrap());
    program.get("/v1/vms").await.expect(200);
    program
        .post("/v1/system:reboot", json!({}))
        .await
        .problem(403, "forbidden");
    let list = admin.get("/v1/tokens").await.expect(200);
    assert_eq!(list["items"][0]["name"], "backup");
    assert!(list["items"][0].get("secret").is_none());
    admin.delete(reply.header("location")).await.expect(204);
    program.get("/v1/vms").await.problem(401, "unauthorized");
    server.stop().await;
}

#[tokio::test]
async fn the_local_console_reads_only() {
    let server = TestServer::start().await;
    let local = server.client().token(server.manager.local_token());
    local.get("/v1/system").await.expect(200);
    local.get("/v1/vms").await.expect(200);
    local
        .post("/v1/vms", json!({}))
        .await
        .problem(403, "forbidden");
    local
        .post("/v1/tokens", json!({"name": "x"}))
        .await
        .problem(403, "forbidden");
    server.stop().await;
}

#[tokio::test]
async fn a_cookie_alone_changes_nothing() {
    let server = TestServer::start().await;
    let client = server.client();
    let login = json!({"user": "admin", "password": server.password()});
    let reply = client.post("/v1/sessions", login).await;
    let cookie = reply
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let cookie = ("cookie", cookie.as_str());
    let get = client
        .send(Method::GET, "/v1/vms", &[cookie], Bytes::new())
        .await;
    get.expect(200);
    let own = format!("https://{}", client.authority());
    let logout = async |headers: &[(&str, &str)]| {
        let path = "/v1/sessions/current";
        client
            .send(Method::DELETE, path, headers, Bytes::new())
            .await
    };
    logout(&[cookie]).await.problem(403, "forbidden");
    logout(&[cookie, ("origin", "https://evil.example")])
        .await
        .problem(403, "forbidden");
    let forged = [cookie, ("origin", "null"), ("x-lodge-request", "1")];
    logout(&forged).await.problem(403, "forbidden");
    let reply = logout(&[cookie, ("origin", &own)]).await;
    reply.expect(204);
    assert!(reply.header("set-cookie").contains("Max-Age=0"));
    server.stop().await;
}
