//! Bad input gets a clear error, and nothing changes.

use anyhow::{Result, ensure};
use lodge_tests::artifacts;
use lodge_tests::curl::{Answer, Curl};
use lodge_tests::host::{Host, PASSWORD};
use lodge_tests::process::tool;
use lodge_tests::shared::Shared;

/// A problem of that kind whose detail or hint contains `words`.
fn refused(answer: &Answer, status: u16, code: &str, words: &str) -> Result<()> {
    ensure!(answer.status == status, "expected {status}: {answer:?}");
    let content = answer.header("content-type").unwrap_or_default();
    ensure!(content == "application/problem+json", "{answer:?}");
    let problem = answer.json()?;
    ensure!(problem["code"] == code, "expected {code}: {problem}");
    let text = problem.to_string();
    ensure!(text.contains(words), "{words:?} is not in {problem}");
    Ok(())
}

fn logging_in(host: &Host) -> Result<()> {
    let anonymous = Curl::new(host.machine.port);
    refused(&anonymous.get("/v1/vms")?, 401, "unauthorized", "")?;
    refused(
        &anonymous.post(
            "/v1/sessions",
            r#"{"user": "admin", "password": "wrong-one"}"#,
        )?,
        401,
        "unauthorized",
        "",
    )?;
    refused(
        &anonymous.post(
            "/v1/sessions",
            r#"{"user": "nobody", "password": "wrong-one"}"#,
        )?,
        401,
        "unauthorized",
        "",
    )?;
    let mut last = anonymous.post(
        "/v1/sessions",
        r#"{"user": "nobody", "password": "wrong-one"}"#,
    )?;
    for _ in 0..20 {
        if last.status == 429 {
            break;
        }
        last = anonymous.post(
            "/v1/sessions",
            r#"{"user": "nobody", "password": "wrong-one"}"#,
        )?;
    }
    refused(&last, 429, "too_many_requests", "")?;
    ensure!(last.header("retry-after").is_some(), "{last:?}");
    // The administrator is not locked out by somebody else's attempts.
    host.curl().map(drop)
}

fn requests(host: &Host) -> Result<()> {
    let curl = host.curl()?;
    refused(
        &curl.post("/v1/vms", "{\"name\": ")?,
        400,
        "invalid_request",
        "line",
    )?;
    refused(
        &curl.post(
            "/v1/vms",
            r#"{"name": "x", "boot": {"kernel": "linux"}, "cpus": 2}"#,
        )?,
        400,
        "invalid_request",
        "cpus",
    )?;
    refused(
        &curl.post(
            "/v1/vms",
            r#"{"name": "../x", "boot": {"kernel": "linux"}}"#,
        )?,
        400,
        "invalid_request",
        "name",
    )?;
    refused(
        &curl.post(
            "/v1/vms",
            r#"{"name": "x", "vcpus": 65, "boot": {"kernel": "linux"}}"#,
        )?,
        400,
        "invalid_request",
        "/vcpus",
    )?;
    refused(
        &curl.post(
            "/v1/vms",
            r#"{"name": "x", "memory": "1MiB", "boot": {"kernel": "linux"}}"#,
        )?,
        400,
        "invalid_request",
        "/memory",
    )?;
    refused(
        &curl.post("/v1/vms", r#"{"name": "x", "boot": {"kernel": "missing"}}"#)?,
        400,
        "invalid_request",
        "missing",
    )?;
    refused(&curl.get("/v1/nothing")?, 404, "not_found", "")?;
    refused(&curl.get("/v1/vms/nobody")?, 404, "not_found", "nobody")?;
    refused(
        &curl.request("PATCH", "/v1/vms", &["-d", "{}"])?,
        405,
        "method_not_allowed",
        "",
    )?;
    refused(&curl.get("/v1/vms?limt=3")?, 400, "invalid_request", "limt")?;
    let large = host.machine.directory().join("large.json");
    std::fs::write(&large, format!("{{\"name\": \"{}\"}}", "x".repeat(4 << 20)))?;
    let data = format!("@{}", large.display());
    refused(
        &curl.request("POST", "/v1/vms", &["--data-binary", &data])?,
        413,
        "payload_too_large",
        "",
    )?;
    ensure!(
        curl.get("/v1/vms")?.json()?["items"] == serde_json::json!([]),
        "something was created"
    );
    Ok(())
}

fn names_clash(host: &Host) -> Result<()> {
    let curl = host.curl()?;
    let body = r#"{"name": "twin", "boot": {"kernel": "linux"}}"#;
    let created = curl.post("/v1/vms", body)?;
    ensure!(created.status == 201, "{created:?}");
    refused(&curl.post("/v1/vms", body)?, 409, "already_exists", "twin")?;
    refused(
        &curl.request("DELETE", "/v1/images/linux", &[])?,
        409,
        "in_use",
        "twin",
    )?;
    let etag = created.header("etag").unwrap_or_default().to_owned();
    let changed = curl.request(
        "PATCH",
        "/v1/vms/twin",
        &["-d", r#"{"description": "one"}"#],
    )?;
    ensure!(changed.status == 200, "{changed:?}");
    let late = curl.request(
        "PATCH",
        "/v1/vms/twin",
        &[
            "-H",
            "Content-Type: application/json",
            "-H",
            &format!("If-Match: {etag}"),
            "-d",
            r#"{"description": "two"}"#,
        ],
    )?;
    refused(&late, 412, "precondition_failed", "")?;
    ensure!(curl.get("/v1/vms/twin")?.json()?["description"] == "one");
    refused(
        &curl.get("/v1/vms/twin/ova")?,
        400,
        "invalid_request",
        "without firmware",
    )?;
    ensure!(curl.request("DELETE", "/v1/vms/twin", &[])?.status == 204);
    Ok(())
}

fn kernels(host: &Host) -> Result<()> {
    let directory = host.machine.directory();
    let kernel = std::fs::read(artifacts::guest_kernel())?;
    let truncated = directory.join("truncated");
    std::fs::write(&truncated, &kernel[..kernel.len() / 2])?;
    let jpeg = directory.join("picture.jpg");
    std::fs::write(
        &jpeg,
        [&b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"[..], &[0x55; 60_000]].concat(),
    )?;
    // A disk that would show whoever sends it a file of the host.
    let backed = directory.join("disk.qcow2");
    let path = backed.to_string_lossy();
    let backing = ["-b", "/etc/shadow", "-F", "raw"];
    let arguments = [
        &["create", "-q", "-u", "-f", "qcow2"][..],
        &backing,
        &[&path, "16M"],
    ];
    tool("qemu-img", arguments.concat())?;
    for (file, kind, words) in [
        (&truncated, "kernel", "cut short"),
        (&jpeg, "kernel", "JPEG"),
        (&backed, "disk", "backing file \"/etc/shadow\""),
    ] {
        let error = host.cli.fails(&[
            "image",
            "upload",
            &file.to_string_lossy(),
            "bad",
            "--kind",
            kind,
        ])?;
        ensure!(error.contains(words), "{words:?} is not in {error}");
    }
    let curl = host.curl()?;
    let data = format!("@{}", jpeg.display());
    let wrong = "0".repeat(64);
    let path = format!("/v1/images?name=bad&kind=initrd&sha256={wrong}");
    let answer = curl.request(
        "POST",
        &path,
        &[
            "-H",
            "Content-Type: application/octet-stream",
            "--data-binary",
            &data,
        ],
    )?;
    ensure!(answer.status == 400, "{answer:?}");
    ensure!(
        host.cli.json(&["image", "list"])?.as_array().map(Vec::len) == Some(2),
        "something was stored"
    );
    Ok(())
}

fn no_space(host: &Host) -> Result<()> {
    // Said at once: nobody reads all of it before.
    let huge = host.machine.directory().join("huge.raw");
    std::fs::File::create(&huge)?.set_len(64 << 30)?;
    let before = host.cli.json(&["system", "show"])?["storage"]["free"]
        .as_u64()
        .unwrap_or(0);
    let error = host.cli.fails(&[
        "image",
        "upload",
        &huge.to_string_lossy(),
        "huge",
        "--kind",
        "disk",
    ])?;
    ensure!(error.contains("64 GiB are needed"), "{error}");
    let after = host.cli.json(&["system", "show"])?["storage"]["free"]
        .as_u64()
        .unwrap_or(0);
    ensure!(
        before.abs_diff(after) < 16 << 20,
        "space leaked: {before} before, {after} after"
    );
    ensure!(host.cli.json(&["image", "list"])?.as_array().map(Vec::len) == Some(2));
    Ok(())
}

fn transport(host: &Host) -> Result<()> {
    let address = format!("127.0.0.1:{}", host.machine.port);
    for (version, good) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let script =
            format!("echo | timeout 60 openssl s_client {version} -connect {address} 2>&1; true");
        let text = tool("sh", ["-c", &script])?;
        let connected = text.contains("Cipher is TLS_") || text.contains("Cipher is ECDHE");
        ensure!(connected == good, "{version}: {text}");
    }
    let wrong = "AB".repeat(32);
    let url = format!("https://{address}");
    let outcome = host.cli.outcome(
        &[
            "remote",
            "add",
            "evil",
            &url,
            "--fingerprint",
            &wrong,
            "--password-stdin",
        ],
        PASSWORD,
    )?;
    let error = outcome.failure()?;
    ensure!(
        error.contains("certificate") && error.contains(&host.fingerprint),
        "{error}"
    );
    Ok(())
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let host = Shared::take().unwrap();
    requests(&host).unwrap();
    names_clash(&host).unwrap();
    kernels(&host).unwrap();
    no_space(&host).unwrap();
    transport(&host).unwrap();
    logging_in(&host).unwrap();
}
