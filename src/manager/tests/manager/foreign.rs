//! Uploads of foreign disk images, made by `qemu-img`.

use std::fs;
use std::path::Path;
use std::process::Command;

use lodge_api::disk::{Disk, DiskApply};
use lodge_api::image::{DiskFormat, Image, ImageKind, ImageUpload};
use lodge_api::operation::OperationStatus;
use lodge_api::page::ListParams;
use lodge_api::{ErrorCode, Problem, Size};
use lodge_manager::Manager;
use serde_json::json;

use crate::support::{Host, admin, name, pieces, wait, within};

fn qemu_img(directory: &Path, arguments: &[&str]) {
    let status = Command::new("qemu-img")
        .args(arguments)
        .current_dir(directory)
        .status()
        .unwrap_or_else(|error| panic!("qemu-img is needed for this test: {error}"));
    assert!(status.success(), "{arguments:?}");
}

/// A partitioned disk of 4 MiB, and images of it in `directory`.
fn make(directory: &Path) -> Vec<u8> {
    let mut disk = vec![0; 4 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    disk[446 + 4] = 0x83;
    disk[446 + 8..446 + 16].copy_from_slice(b"\0\x08\0\0\0\x10\0\0");
    let mut state = 1_u32;
    for byte in &mut disk[1 << 20..2 << 20] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    fs::write(directory.join("raw"), &disk).unwrap();
    for (format, file, options) in [
        ("qcow2", "qcow2", "compression_type=zstd"),
        ("vmdk", "vmdk", "subformat=streamOptimized"),
        ("vpc", "vhd", "subformat=fixed,force_size=on"),
        ("vhdx", "vhdx", "subformat=dynamic"),
    ] {
        qemu_img(
            directory,
            &[
                "convert", "-f", "raw", "-O", format, "-o", options, "raw", file,
            ],
        );
    }
    disk
}

async fn upload(
    manager: &Manager,
    image: &str,
    format: Option<DiskFormat>,
    content: Vec<u8>,
) -> Result<Image, Problem> {
    let request = ImageUpload {
        name: name(image),
        kind: ImageKind::Disk,
        format,
        sha256: None,
    };
    let length = Some(content.len() as u64);
    within(manager.image_upload(&admin(), request, length, pieces(&content))).await
}

#[tokio::test]
async fn become_raw_and_say_what_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let disk = make(directory.path());
    let mut host = Host::new().await;
    let mut kept = Vec::new();
    for (file, format, said) in [
        ("qcow2", DiskFormat::Qcow2, "qcow2 v3, zstd"),
        ("vmdk", DiskFormat::Vmdk, "vmdk, streamOptimized"),
        ("vhd", DiskFormat::Vhd, "vhd, fixed"),
        ("vhdx", DiskFormat::Vhdx, "vhdx, dynamic"),
    ] {
        let content = fs::read(directory.path().join(file)).unwrap();
        let length = content.len() as u64;
        for (image, declared) in [(file.to_owned(), None), (format!("{file}-2"), Some(format))] {
            let made = upload(&host.manager, &image, declared, content.clone()).await;
            let made = made.unwrap_or_else(|problem| panic!("{file}: {problem}"));
            let origin = made.origin.clone().expect("it was not raw");
            assert_eq!((origin.format.as_str(), origin.size), (said, Size(length)));
            assert_eq!(made.size, Size(4 << 20));
            assert_eq!(made.format, "raw, MBR");
            let path = host
                .config
                .data_dir
                .join("images")
                .join(made.id.to_string());
            assert!(fs::read(path).unwrap() == disk, "{file}");
            kept.push(made);
        }
    }
    let raw = upload(&host.manager, "raw", None, disk).await.unwrap();
    assert_eq!(raw.origin, None);
    assert_eq!(host.files("images"), kept.len() + 1);
    let operations = host.manager.operation_list(&ListParams::default()).unwrap();
    let newest = &operations.items[1];
    assert!(newest.log[0].contains("vhdx, dynamic"), "{newest:?}");
    assert_eq!(newest.status, OperationStatus::Succeeded);
    host.restart().await;
    for image in kept {
        assert_eq!(host.manager.image_view(image.name.as_str()).unwrap(), image);
    }
    host.manager.close().await;
}

#[tokio::test]
async fn leave_nothing_when_they_are_damaged() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let host = Host::new().await;
    for file in ["qcow2", "vmdk", "vhdx"] {
        let mut content = fs::read(directory.path().join(file)).unwrap();
        content.truncate(content.len() * 2 / 3);
        let problem = upload(&host.manager, "x", None, content).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidContent, "{file}: {problem}");
        assert!(problem.detail.contains("cut short"), "{file}: {problem}");
        assert!(problem.hint.is_some());
        assert_eq!(host.files("images"), 0);
    }
    let qcow2 = fs::read(directory.path().join("qcow2")).unwrap();
    let problem = upload(&host.manager, "x", Some(DiskFormat::Vhdx), qcow2.clone()).await;
    assert_eq!(problem.unwrap_err().pointer.as_deref(), Some("?format"));
    assert_eq!(host.files("images"), 0);
    // What is said to be raw is raw.
    let raw = upload(&host.manager, "x", Some(DiskFormat::Raw), qcow2).await;
    assert_eq!((raw.unwrap().origin, host.files("images")), (None, 1));
    host.manager.close().await;
}

/// What a manager that died in the middle has left is gone with the next.
#[tokio::test]
async fn are_gone_after_a_crash() {
    let mut host = Host::new().await;
    let images = host.config.data_dir.join("images");
    for number in 0..2 {
        fs::write(images.join(format!(".new-1-{number}-0")), b"half").unwrap();
    }
    host.restart().await;
    assert_eq!(host.files("images"), 0);
    host.manager.close().await;
}

async fn apply(
    manager: &Manager,
    disk: &str,
    sha256: Option<&str>,
    content: Vec<u8>,
) -> Result<Disk, Problem> {
    let apply = DiskApply {
        sha256: sha256.map(str::to_owned),
    };
    let length = Some(content.len() as u64);
    within(manager.disk_apply(&admin(), disk, apply, length, pieces(&content))).await
}

#[tokio::test]
async fn what_changed_is_applied_to_a_disk_or_nothing_is() {
    let directory = tempfile::tempdir().unwrap();
    let disk = make(directory.path());
    let changed = |base: &str, image: &str| {
        let convert = [
            "convert", "-f", "raw", "-O", "qcow2", "-B", base, "-F", "raw", "raw", image,
        ];
        qemu_img(directory.path(), &convert);
        fs::read(directory.path().join(image)).unwrap()
    };
    fs::write(directory.path().join("base"), vec![7; 2 << 20]).unwrap();
    let changes = changed("base", "changes");
    let host = Host::new().await;
    let create = serde_json::from_value(json!({"name": "data", "size": "2MiB"})).unwrap();
    let operation = host.manager.disk_create(&admin(), create).await.unwrap();
    wait(&host.manager, &operation).await;
    let id = host.manager.disk_view("data").await.unwrap().id.to_string();
    let file = host.config.data_dir.join("disks").join(id);
    fs::write(&file, vec![7; 2 << 20]).unwrap();
    let refused = async |sha256: Option<&str>, content: Vec<u8>, code: ErrorCode| {
        let problem = apply(&host.manager, "data", sha256, content).await;
        let problem = problem.unwrap_err();
        assert_eq!(problem.code, code, "{problem}");
        assert!(fs::read(&file).unwrap() == vec![7; 2 << 20], "{problem}");
        assert_eq!(host.files("disks"), 1, "{problem}");
    };
    let other = "0".repeat(64);
    refused(Some(&other), changes.clone(), ErrorCode::ChecksumMismatch).await;
    refused(Some("x"), changes.clone(), ErrorCode::InvalidRequest).await;
    let half = changes[..changes.len() / 2].to_vec();
    refused(None, half, ErrorCode::InvalidContent).await;
    refused(None, disk.clone(), ErrorCode::InvalidContent).await;
    refused(None, Vec::new(), ErrorCode::InvalidContent).await;

    let applied = apply(&host.manager, "data", None, changes.clone()).await;
    let applied = applied.unwrap();
    assert_eq!(applied.size, Size(4 << 20), "it has grown");
    assert!(fs::read(&file).unwrap() == disk);
    assert_eq!(host.manager.disk_view("data").await.unwrap(), applied);
    assert_eq!(host.files("disks"), 1);
    let operations = host.manager.operation_list(&ListParams::default()).unwrap();
    let last = operations
        .items
        .iter()
        .find(|one| one.kind == "disk_apply" && one.error.is_none());
    assert!(
        last.is_some_and(|one| one.target == "/v1/disks/data"),
        "{operations:?}"
    );

    // It is longer than the disk was that these are of.
    fs::write(directory.path().join("raw"), vec![1; 1 << 20]).unwrap();
    let problem = apply(&host.manager, "data", None, changed("base", "smaller")).await;
    assert_eq!(problem.unwrap_err().code, ErrorCode::InvalidContent);
    assert!(fs::read(&file).unwrap() == disk);
    let problem = apply(&host.manager, "none", None, changes).await;
    assert_eq!(problem.unwrap_err().code, ErrorCode::NotFound);
}
