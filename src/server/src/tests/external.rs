//! Clients that are not ours: curl and openssl.

use std::process::{Output, Stdio};

use tokio::process::Command;

use super::TestServer;

async fn curl(server: &TestServer, arguments: &[&str], path: &str) -> Output {
    let url = format!("https://localhost:{}{path}", server.address.port());
    Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
        .arg(server.certificate_file())
        .args(arguments)
        .arg(url)
        .env_remove("https_proxy")
        .output()
        .await
        .expect("curl is installed")
}

fn text(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn curl_trusts_the_certificate_and_speaks_both_versions() {
    let server = TestServer::start().await;
    let wanted = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{http_version}",
    ];
    let two = curl(&server, &[&wanted[..], &["--http2"]].concat(), "/v1").await;
    assert_eq!(text(&two), "200 2");
    let one = curl(&server, &[&wanted[..], &["--http1.1"]].concat(), "/v1").await;
    assert_eq!(text(&one), "200 1.1");
    server.stop().await;
}

#[tokio::test]
async fn curl_refuses_a_stranger() {
    let (server, other) = (TestServer::start().await, TestServer::start().await);
    let url = format!("https://localhost:{}/v1", server.address.port());
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "20", "--cacert"])
        .arg(other.certificate_file())
        .arg(url)
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    server.stop().await;
    other.stop().await;
}

async fn s_client(server: &TestServer, version: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &server.address.to_string(), version])
        // Debian's own policy would refuse old versions before they leave the machine.
        .args(["-cipher", "ALL:@SECLEVEL=0"])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("openssl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn only_current_versions_of_tls() {
    let server = TestServer::start().await;
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(&server, version).await;
        assert!(said.contains(&format!("New, {name}")), "{said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(&server, version).await;
        assert!(said.contains("New, (NONE)"), "{said}");
    }
    server.stop().await;
}
