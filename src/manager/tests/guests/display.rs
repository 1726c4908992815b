//! Screen and keyboard.

use std::path::Path;

use lodge_api::keyboard::VmKeys;
use lodge_api::vm::VmAction;
use lodge_api::{ErrorCode, Problem};
use serde_json::json;

use crate::common::{host_with, reads};
use crate::programs;
use crate::support::{Host, admin, within};
use crate::viewer::Viewer;

async fn types(host: &Host, vm: &str, keys: serde_json::Value) -> Result<(), Problem> {
    let keys: VmKeys = serde_json::from_value(keys).unwrap();
    within(host.manager.vm_type(&admin(), vm, &keys)).await
}

async fn picture(host: &Host, vm: &str) -> Result<Vec<u8>, Problem> {
    within(host.manager.vm_screenshot(&admin(), vm)).await
}

/// Red, green and blue of all pixels.
fn pixels(png: &[u8]) -> Vec<u8> {
    let decoder = png::Decoder::new(std::io::Cursor::new(png));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

/// Number of pixels, and of those which are not black.
fn decode(png: &[u8]) -> (usize, usize) {
    let pixels = pixels(png);
    let lit = pixels.chunks(3).filter(|pixel| **pixel != [0; 3]);
    (pixels.len() / 3, lit.count())
}

pub async fn a_guest_with_firmware_is_seen_and_typed_on() {
    let bios = ["bios-256k.bin", "vgabios-ramfb.bin"];
    if !bios
        .iter()
        .all(|name| Path::new("/usr/share/seabios").join(name).exists())
    {
        println!("SKIPPED: this machine has no SeaBIOS (package seabios)");
        return;
    }
    let host = Host::new().await;
    let spec = json!({"name": "old", "memory": "64MiB", "boot": {"firmware": "bios"}});
    let spec = serde_json::from_value(spec).unwrap();
    host.manager.vm_create(&admin(), spec).await.unwrap();
    let problem = picture(&host, "old").await.unwrap_err();
    assert!(problem.detail.contains("is stopped"), "{problem}");
    host.done("old", VmAction::Start).await;
    reads(&host, "old", "No bootable device").await;
    let (count, lit) = decode(&picture(&host, "old").await.unwrap());
    assert!(lit > 1000 && lit < count / 2, "{lit} of {count} are lit");
    // The BIOS takes keys by interrupt, and forgets those that nobody wants.
    let text = "Lodge\n".repeat(20);
    types(&host, "old", json!({"text": text})).await.unwrap();
    let chords = json!({"keys": ["shift-a", "enter"]});
    types(&host, "old", chords).await.unwrap();
    host.done("old", VmAction::Pause).await;
    let paused = decode(&picture(&host, "old").await.unwrap());
    assert_eq!(paused.0, count);
    // A viewer sees the same.
    let viewer = within(host.manager.vm_vnc(&admin(), "old")).await.unwrap();
    let seen = within(async { Viewer::greet(viewer, "old").await.picture().await }).await;
    assert!(seen == pixels(&picture(&host, "old").await.unwrap()));
    let text = json!({"text": "too much for a keyboard"});
    let problem = types(&host, "old", text).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    assert!(problem.detail.contains("of 23 characters"), "{problem}");
    host.done("old", VmAction::Kill).await;
    host.manager.close().await;
}

pub async fn a_guest_without_firmware_has_neither() {
    let host = host_with("web", programs::idle()).await;
    host.done("web", VmAction::Start).await;
    let seen = picture(&host, "web").await.map(drop);
    let typed = types(&host, "web", json!({"text": "ls\n"})).await;
    let viewed = host.manager.vm_vnc(&admin(), "web").await.map(drop);
    for problem in [seen.unwrap_err(), typed.unwrap_err(), viewed.unwrap_err()] {
        assert_eq!(problem.code, ErrorCode::WrongState);
        assert!(
            problem.detail.contains("only guests with firmware"),
            "{problem}"
        );
    }
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}
