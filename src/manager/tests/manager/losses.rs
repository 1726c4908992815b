//! Records that a damaged store has lost: what they stood for is not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lodge_api::image::ImageKind;
use lodge_api::operation::OperationStatus;
use lodge_api::page::ListParams;
use lodge_api::snapshot::SnapshotCreate;
use lodge_store::{Batch, Opened, Precondition, Record, SledStore};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Host, admin, bzimage, make_disk, name, open, spec, wait};

fn file(host: &Host, datastore: &str, id: Uuid) -> PathBuf {
    host.config.data_dir.join(datastore).join(id.to_string())
}

/// A guest with a disk that has something on it.
async fn fill(host: &Host) -> Uuid {
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    let made = make_disk(host, json!({"name": "data", "size": "8MiB"})).await;
    assert_eq!(made, OperationStatus::Succeeded);
    let id = host.manager.disk_view("data").await.unwrap().id;
    let disk = File::options().write(true).open(file(host, "disks", id));
    disk.unwrap().write_all_at(b"of a guest", 4096).unwrap();
    let mut wanted = spec("web");
    wanted.disks = serde_json::from_value(json!([{"disk": "data"}])).unwrap();
    host.manager.vm_create(&admin(), wanted).await.unwrap();
    id
}

fn content(host: &Host, disk: Uuid) -> Vec<u8> {
    let mut bytes = vec![0; 10];
    let file = File::open(file(host, "disks", disk)).unwrap();
    file.read_exact_at(&mut bytes, 4096).unwrap();
    bytes
}

/// Ends the manager, does something to its store, and starts another.
async fn damaged(host: &mut Host, damage: impl FnOnce(PathBuf) + Send) {
    host.manager.close().await;
    let store = host.config.data_dir.join("store");
    // The store is opened by callers without an executor.
    std::thread::scope(|scope| scope.spawn(|| damage(store)).join().unwrap());
    host.manager = open(&host.config).await;
}

#[tokio::test]
async fn disks_and_images_outlive_the_store() {
    let mut host = Host::new().await;
    let disk = fill(&host).await;
    let image = host.manager.image_view("kernel").unwrap();
    let create: SnapshotCreate = serde_json::from_value(json!({"name": "before"})).unwrap();
    let operation = host.manager.vm_snapshot(&admin(), "web", create).await;
    let operation = wait(&host.manager, &operation.unwrap()).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    damaged(&mut host, |store| {
        fs::remove_dir_all(store.join("exports")).unwrap();
        fs::write(store.join("sled/conf"), b"no configuration").unwrap();
    })
    .await;
    let disks = host.manager.disk_list(ListParams::default()).await.unwrap();
    assert_eq!(disks.items.len(), 2, "its own and that of the snapshot");
    assert!(disks.items.iter().any(|found| found.id == disk));
    for found in &disks.items {
        assert!(found.name.as_str().starts_with("recovered-"));
        assert_eq!(found.size.bytes(), 8 << 20);
        assert_eq!(content(&host, found.id), b"of a guest");
    }
    let images = host.manager.image_list(&ListParams::default()).unwrap();
    let [found] = &images.items[..] else {
        panic!("{images:?}")
    };
    assert_eq!(
        (found.id, found.kind, &found.sha256, &found.format),
        (image.id, ImageKind::Kernel, &image.sha256, &image.format)
    );
    let warnings = host.manager.system().warnings;
    let told = warnings
        .iter()
        .filter(|text| text.contains("is there again"));
    assert_eq!(told.count(), 3, "{warnings:?}");
    assert_eq!(host.files("snapshots"), 0);
    // Once they are recorded, all is as ever.
    host.restart().await;
    let again = host.manager.disk_list(ListParams::default()).await.unwrap();
    assert_eq!(again, disks);
    let warnings = host.manager.system().warnings;
    assert!(
        !warnings.iter().any(|text| text.contains("recovered")),
        "{warnings:?}"
    );
}

/// Rows of the manager's tables, whatever is in them.
macro_rules! table {
    ($name:ident, $table:literal) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name {}

        impl Record for $name {
            const TABLE: &'static str = $table;
            const SCHEMA: u32 = 1;
        }
    };
}

table!(DiskRow, "disks");
table!(NameRow, "names");

fn without<R: Record>(store: &Path, key: &str) {
    let Opened { store: opened, .. } = SledStore::open(store).unwrap();
    let mut batch = Batch::new();
    batch.delete::<R>(key, Precondition::Present).unwrap();
    opened.commit_blocking(batch).unwrap();
    drop(opened);
    fs::write(store.join("losses"), b"").unwrap();
}

#[tokio::test]
async fn a_lost_record_is_made_again_under_its_name() {
    let mut host = Host::new().await;
    let disk = fill(&host).await;
    damaged(&mut host, |store| {
        without::<DiskRow>(&store, &disk.to_string());
    })
    .await;
    let found = host.manager.disk_view("data").await.unwrap();
    assert_eq!((found.id, found.used_by), (disk, vec![name("web")]));
    damaged(&mut host, |store| {
        without::<NameRow>(&store, "disk/data");
    })
    .await;
    assert_eq!(host.manager.disk_view("data").await.unwrap().id, disk);
    let content = file(&host, "disks", disk);
    damaged(&mut host, |store| {
        without::<DiskRow>(&store, &disk.to_string());
        fs::remove_file(content).unwrap();
    })
    .await;
    // The name of what is gone for good is free.
    let made = make_disk(&host, json!({"name": "data", "size": "1MiB"})).await;
    assert_eq!(made, OperationStatus::Succeeded);
}

#[tokio::test]
async fn a_disk_without_its_file_is_told_of() {
    let mut host = Host::new().await;
    let disk = fill(&host).await;
    fs::remove_file(file(&host, "disks", disk)).unwrap();
    host.restart().await;
    let warnings = host.manager.system().warnings;
    assert!(
        warnings
            .iter()
            .any(|text| text.contains("\"data\" has lost its content")),
        "{warnings:?}"
    );
}
