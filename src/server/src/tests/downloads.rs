//! Disks and images are sent as raw, qcow2 and VMDK, and come back as they were.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::TestServer;
use super::client::Client;

const BINARY: (&str, &str) = ("content-type", "application/octet-stream");

fn qemu_img(directory: &Path, arguments: &[&str]) {
    let status = Command::new("qemu-img")
        .args(arguments)
        .current_dir(directory)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("qemu-img is needed for this test: {error}"));
    assert!(status.success(), "{arguments:?}");
}

/// Uploads a disk image, and makes a disk of it.
async fn make(client: &Client, content: &Bytes) {
    let upload = client.send(
        Method::POST,
        "/v1/images?name=base&kind=disk&format=raw",
        &[BINARY],
        content.clone(),
    );
    upload.await.expect(201);
    let disk = json!({"name": "data", "image": "base"});
    client.post("/v1/disks?wait=1m", disk).await.expect(200);
}

#[tokio::test]
async fn in_every_format_over_both_versions() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    let directory = tempfile::tempdir().unwrap();
    let mut content = vec![0; 3 << 20];
    for (number, byte) in content[1 << 20..2 << 20].iter_mut().enumerate() {
        *byte = (number * number / 7) as u8;
    }
    std::fs::write(directory.path().join("raw"), &content).unwrap();
    make(&admin, &Bytes::from(content)).await;
    for what in ["images/base", "disks/data"] {
        for client in [admin.clone(), admin.clone().http2()] {
            for (format, known) in [("raw", true), ("qcow2", true), ("vmdk", false)] {
                let reply = client
                    .get(&format!("/v1/{what}/content?format={format}"))
                    .await;
                assert_eq!(reply.status, 200, "{what} {format}");
                let length = reply.headers.get("content-length");
                assert_eq!(length.is_some(), known, "{what} {format}");
                let name = reply.header("content-disposition");
                assert!(name.ends_with(&format!(".{format}\"")), "{name}");
                std::fs::write(directory.path().join("image"), &reply.body).unwrap();
                let compare = ["compare", "-f", format, "-F", "raw", "image", "raw"];
                qemu_img(directory.path(), &compare);
            }
        }
    }
    let operations = admin
        .get("/v1/operations?filter=status%20eq%20succeeded")
        .await;
    let kinds = operations.expect(200).to_string();
    assert!(kinds.contains("disk_export") && kinds.contains("image_export"));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_or_no_disk_is_refused() {
    let server = TestServer::start().await;
    let admin = server.login().await;
    admin
        .get("/v1/disks/none/content")
        .await
        .problem(404, "not_found");
    let path = "/v1/images?name=linux&kind=kernel";
    admin
        .send(Method::POST, path, &[BINARY], super::kernel())
        .await
        .expect(201);
    let as_it_is = admin.get("/v1/images/linux/content").await;
    assert_eq!(
        (as_it_is.status.as_u16(), as_it_is.body),
        (200, super::kernel())
    );
    for format in ["qcow2", "vhd"] {
        let path = format!("/v1/images/linux/content?format={format}");
        let problem = admin.get(&path).await.problem(400, "invalid_request");
        assert_eq!(problem["pointer"], "?format");
    }
    server.stop().await;
}
