//! The configuration as a whole, over HTTPS.

use serde_json::{Value, json};

use super::TestServer;

const URL: &str = "/v1/system/configuration";
const RESTORE: &str = "/v1/system/configuration:restore";

fn records<'a>(configuration: &'a Value, table: &str) -> Vec<&'a Value> {
    let records = configuration["records"].as_array().unwrap();
    let of_table = records.iter().filter(|record| record["table"] == table);
    of_table.collect()
}

#[tokio::test]
async fn what_one_server_gives_another_takes() {
    let first = TestServer::start().await;
    let admin = first.login().await;
    let anna = json!({"name": "anna", "password": "correct horse", "role": "operator"});
    admin.post("/v1/users", anna).await.expect(201);
    // More than other methods take.
    for number in 0..10 {
        let data = json!({"user_data": format!("#cloud-config\n#{}", "x".repeat(7000))});
        let vm = json!({"name": format!("vm-{number}"), "cloud_init": data});
        admin.post("/v1/vms", vm).await.expect(201);
    }
    let configuration = admin.get(URL).await.expect(200);
    assert_eq!(configuration["format"], 1);
    assert_eq!(records(&configuration, "users").len(), 2);
    assert_eq!(records(&configuration, "vms").len(), 10);
    assert!(records(&configuration, "sessions").is_empty());
    let text = configuration.to_string();
    assert!(!text.contains("PRIVATE KEY") && !text.contains("correct horse"));
    assert!(text.len() > 64 << 10, "{}", text.len());
    first.stop().await;

    let second = TestServer::start().await;
    let (client, _) = second.login_with_token().await;
    let mut body = json!({"configuration": configuration, "preview": true});
    let preview = client.post(RESTORE, body.clone()).await.expect(200);
    assert_eq!(preview["preview"], true);
    client.get("/v1/users/anna").await.problem(404, "not_found");
    body["preview"] = json!(false);
    let restored = client.post(RESTORE, body).await;
    // The administrator's password became that of the first server, and so this session has ended.
    let restored = restored.expect(200);
    let admin = restored["objects"].as_array().unwrap().iter();
    let mut admin = admin.filter(|object| object["name"] == "admin");
    let change = json!([{"pointer": "/password", "secret": true}]);
    assert_eq!(admin.next().unwrap()["changes"], change);
    client.get(URL).await.problem(401, "unauthorized");
    let anna = second.login_as("anna", "correct horse").await;
    assert_eq!(anna.get("/v1/vms/vm-9").await.expect(200)["vcpus"], 1);
    // Whoever may not change the host may not have its hashes.
    anna.get(URL).await.problem(403, "forbidden");
    second.stop().await;
}

#[tokio::test]
async fn what_cannot_be_taken_is_named() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let configuration = admin.get(URL).await.expect(200);
    type Change = fn(&mut Value);
    let with = |change: Change| {
        let mut body = json!({"configuration": configuration, "preview": true});
        change(&mut body);
        body
    };
    let cases: [(Change, &str); 5] = [
        (|body| body["mac"] = json!({}), "/mac"),
        (
            |body| body["configuration"]["record"] = json!([]),
            "/configuration/record",
        ),
        (
            |body| body["configuration"]["records"][0]["schema"] = json!(-1),
            "/configuration/records/0/schema",
        ),
        (
            |body| body["configuration"]["links"] = json!([{"name": "eth0", "mac": "x"}]),
            "/configuration/links/0/mac",
        ),
        (
            |body| {
                let id = "a1b2c3d4-0000-4000-8000-000000000000";
                let value = json!({"id": id, "name": "lab", "certificate": "-----BEGIN CERTIFICATE-----",
                    "fingerprint": "", "created_at": "2026-01-01T00:00:00Z"});
                body["configuration"]["records"] =
                    json!([{"table": "authorities", "key": id, "schema": 1, "value": value}]);
            },
            "/configuration/records/0/value/certificate",
        ),
    ];
    for (change, pointer) in cases {
        let reply = admin.post(RESTORE, with(change)).await;
        let problem = reply.problem(400, "invalid_request");
        assert_eq!(problem["pointer"], pointer, "{problem}");
    }
    let large = with(|body| body["configuration"]["hostname"] = json!("x".repeat(8 << 20)));
    let reply = admin.post(RESTORE, large).await;
    reply.problem(413, "payload_too_large");
    server.stop().await;
}
