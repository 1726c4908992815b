//! Every method of the table is guarded as it declares.

use bytes::Bytes;
use lodge_api::privilege::Role;
use serde_json::json;

use super::TestServer;
use super::client::{Client, Reply};
use crate::limits::Limits;
use crate::route::{Access, Route, get};
use crate::routes::table;
use crate::wire::reply::Answer;

/// Calls a method with something in the place of each parameter.
async fn call(client: &Client, route: &Route) -> Reply {
    let mut path = route.path.to_owned();
    while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
        path.replace_range(start..=end, "x");
    }
    client
        .send(route.method.clone(), &path, &[], Bytes::new())
        .await
}

#[tokio::test]
async fn without_a_login_only_public_methods_answer() {
    let server = TestServer::start().await;
    for route in table() {
        let reply = call(&server.client(), &route).await;
        match route.access {
            Access::Public => assert_ne!(reply.status, 401, "{}", route.id),
            Access::Needs(_) => assert_eq!(reply.status, 401, "{}", route.id),
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_viewer_is_refused_what_the_table_says() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let eve = json!({"name": "eve", "password": "correct horse", "role": "viewer"});
    admin.post("/v1/users", eve).await.expect(201);
    let eve = server.login_as("eve", "correct horse").await;
    let mut refused = 0;
    for route in table() {
        let Access::Needs(privilege) = route.access else {
            continue;
        };
        if !Role::Viewer.grants(privilege) {
            call(&eve, &route).await.problem(403, "forbidden");
            refused += 1;
        }
    }
    assert!(refused > 20, "{refused}");
    server.stop().await;
}

async fn panics() -> Answer {
    panic!("as a test")
}

#[tokio::test]
async fn a_panic_is_a_problem_and_the_connection_lives() {
    let mut methods = table();
    methods.push(get("/panics", Access::Public, "test_panic", panics));
    let server = TestServer::with_table(methods, Limits::default()).await;
    for client in [server.client(), server.client().http2()] {
        let reply = client.get("/panics").await;
        let problem = reply.problem(500, "internal");
        let id = reply.header("x-request-id");
        assert!(problem["detail"].as_str().unwrap().contains(id));
    }
    server.client().get("/v1").await.expect(200);
    server.stop().await;
}
