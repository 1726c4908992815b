//! Datastores: where disks and their snapshots are, whatever happens between.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lodge_api::datastore::{Datastore, DatastoreKind, DatastorePatch};
use lodge_api::image::ImageKind;
use lodge_api::operation::{Operation, OperationStatus};
use lodge_api::page::ListParams;
use lodge_api::snapshot::{SnapshotClone, SnapshotCreate, VmRevert};
use lodge_api::system::StorageHealth;
use lodge_api::vm::VmAction;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_manager::IfMatch;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Host, admin, bzimage, make_disk, name, spec, wait};

/// What is on the disks.
const CONTENT: &[u8] = b"of a guest";

/// Where it is.
const AT: u64 = 4096;

/// A host with a guest `web`, whose disk `data` is on the datastore `fast`.
struct Lab {
    host: Host,
    directory: PathBuf,
    disk: Uuid,
}

impl Lab {
    async fn new() -> Self {
        let host = Host::new().await;
        let directory = host.directory.path().join("fast");
        fs::create_dir(&directory).unwrap();
        succeeds(&host, create(&host, "fast", &directory, json!({})).await).await;
        host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
        let disk = json!({"name": "data", "size": "8MiB", "datastore": "fast"});
        assert_eq!(make_disk(&host, disk).await, OperationStatus::Succeeded);
        let disk = host.manager.disk_view("data").await.unwrap().id;
        let mut wanted = spec("web");
        wanted.disks = serde_json::from_value(json!([{"disk": "data"}])).unwrap();
        host.manager.vm_create(&admin(), wanted).await.unwrap();
        let lab = Self {
            host,
            directory,
            disk,
        };
        write(&lab.here("disks"), CONTENT);
        lab
    }

    /// The file of the disk in a folder of the datastore.
    fn here(&self, folder: &str) -> PathBuf {
        self.directory.join(folder).join(self.disk.to_string())
    }

    /// The same on the host's own data storage.
    fn at_home(&self) -> PathBuf {
        let disks = self.host.config.data_dir.join("disks");
        disks.join(self.disk.to_string())
    }

    fn fast(&self) -> Datastore {
        self.host.manager.datastore_view("fast").unwrap()
    }

    async fn on(&self, disk: &str) -> Name {
        self.host.manager.disk_view(disk).await.unwrap().datastore
    }

    async fn move_to(&self, datastore: &str) -> Result<Operation, Problem> {
        let wanted = serde_json::from_value(json!({"datastore": datastore})).unwrap();
        self.host.manager.disk_move(&admin(), "data", wanted).await
    }

    /// Ends the manager, does something to the files, and starts another.
    async fn while_down(&mut self, work: impl FnOnce(&Self)) {
        self.host.manager.close().await;
        work(self);
        self.host.manager = crate::support::open(&self.host.config).await;
    }
}

async fn create(
    host: &Host,
    datastore: &str,
    directory: &Path,
    more: Value,
) -> Result<Operation, Problem> {
    let mut body = json!({"name": datastore, "directory": directory});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let create = serde_json::from_value(body).unwrap();
    host.manager.datastore_create(&admin(), create).await
}

async fn succeeds(host: &Host, started: Result<Operation, Problem>) {
    let ended = wait(&host.manager, &started.unwrap()).await;
    assert_eq!(ended.status, OperationStatus::Succeeded, "{ended:?}");
}

fn write(file: &Path, content: &[u8]) {
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(content, AT).unwrap();
}

fn content(file: &Path) -> Vec<u8> {
    let mut bytes = vec![0; CONTENT.len()];
    File::open(file)
        .unwrap()
        .read_exact_at(&mut bytes, AT)
        .unwrap();
    bytes
}

async fn snapshot(lab: &Lab, snapshot: &str) {
    let create: SnapshotCreate = serde_json::from_value(json!({"name": snapshot})).unwrap();
    let started = lab.host.manager.vm_snapshot(&admin(), "web", create).await;
    succeeds(&lab.host, started).await;
}

async fn revert(lab: &Lab, to: &str) {
    let revert: VmRevert = serde_json::from_value(json!({"snapshot": to})).unwrap();
    let started = lab.host.manager.vm_revert(&admin(), "web", revert).await;
    succeeds(&lab.host, started).await;
}

#[tokio::test]
async fn disks_their_snapshots_and_clones_are_on_their_datastore() {
    let lab = Lab::new().await;
    let manager = &lab.host.manager;
    assert_eq!(content(&lab.here("disks")), CONTENT);
    assert_eq!(lab.on("data").await, name("fast"));
    assert_eq!(lab.host.files("disks"), 0);
    let fast = lab.fast();
    assert_eq!((fast.kind, fast.disks), (DatastoreKind::Directory, 1));
    assert_eq!(fast.provisioned.bytes(), 8 << 20);
    assert_eq!((fast.health, &fast.problem), (StorageHealth::Sound, &None));
    assert!(fast.size.bytes() > 0 && fast.free.bytes() > 0);

    snapshot(&lab, "before").await;
    assert_eq!(
        fs::read_dir(lab.directory.join("snapshots"))
            .unwrap()
            .count(),
        1
    );
    assert_eq!(lab.host.files("snapshots"), 0);
    write(&lab.here("disks"), b"overwritten");
    let clone: SnapshotClone = serde_json::from_value(json!({"name": "copy"})).unwrap();
    let started = manager.snapshot_clone(&admin(), "before", clone).await;
    succeeds(&lab.host, started).await;
    let copy = manager.disk_view("copy-disk0").await.unwrap();
    assert_eq!(copy.datastore, name("fast"));
    let file = lab.directory.join("disks").join(copy.id.to_string());
    assert_eq!(content(&file), CONTENT);
    revert(&lab, "before").await;
    assert_eq!(content(&lab.here("disks")), CONTENT);

    manager
        .snapshot_delete(&admin(), "before", IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(
        fs::read_dir(lab.directory.join("snapshots"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn disks_move_and_snapshots_stay() {
    let mut lab = Lab::new().await;
    snapshot(&lab, "before").await;
    let started = lab.move_to("default").await;
    succeeds(&lab.host, started).await;
    assert_eq!(lab.on("data").await, name("default"));
    assert!(!lab.here("disks").exists());
    assert_eq!(content(&lab.at_home()), CONTENT);
    assert_eq!(lab.fast().disks, 0);
    let problem = lab.move_to("default").await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    let problem = lab.move_to("nowhere").await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/datastore"));

    // Its snapshot is on the other one, and there is no less of it.
    write(&lab.at_home(), b"overwritten");
    lab.host.restart().await;
    revert(&lab, "before").await;
    assert_eq!(content(&lab.at_home()), CONTENT);
    let started = lab.move_to("fast").await;
    succeeds(&lab.host, started).await;
    assert!(!lab.at_home().exists());
    assert_eq!(content(&lab.here("disks")), CONTENT);
}

#[tokio::test]
async fn only_what_is_not_used_is_deleted() {
    let lab = Lab::new().await;
    let manager = &lab.host.manager;
    let asking = admin();
    let delete = || manager.datastore_delete(&asking, "fast", IfMatch::Any);
    snapshot(&lab, "before").await;
    let problem = delete().await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse);
    assert!(problem.detail.contains("disk data"), "{problem}");
    let started = lab.move_to("default").await;
    succeeds(&lab.host, started).await;
    let problem = delete().await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse);
    assert!(problem.detail.contains("snapshot before"), "{problem}");
    manager
        .snapshot_delete(&admin(), "before", IfMatch::Any)
        .await
        .unwrap();
    delete().await.unwrap();
    assert_eq!(fs::read_dir(&lab.directory).unwrap().count(), 0);
    let all = manager.datastore_list(&ListParams::default()).unwrap();
    let [only] = &all.items[..] else {
        panic!("{all:?}")
    };
    assert_eq!(
        (only.name.as_str(), only.kind),
        ("default", DatastoreKind::System)
    );
    let problem = manager
        .datastore_delete(&admin(), "default", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    // The directory can be one again.
    succeeds(
        &lab.host,
        create(&lab.host, "again", &lab.directory, json!({})).await,
    )
    .await;
}

#[tokio::test]
async fn what_cannot_be_one_is_refused() {
    let lab = Lab::new().await;
    let (host, empty) = (&lab.host, lab.host.directory.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    let filled = lab.host.directory.path().join("filled");
    fs::create_dir(&filled).unwrap();
    fs::write(filled.join("of somebody"), "else").unwrap();
    let refused = async |datastore: &str, directory: &Path, more: Value| {
        create(host, datastore, directory, more).await.unwrap_err()
    };
    let problem = refused("fast", &empty, json!({})).await;
    assert_eq!(problem.code, ErrorCode::AlreadyExists);
    let problem = refused("other", &lab.directory, json!({"adopt": true})).await;
    assert_eq!(problem.code, ErrorCode::InUse, "{problem}");
    for (directory, more, pointer) in [
        (&filled, json!({}), "/directory"),
        (
            &host.directory.path().join("nowhere"),
            json!({}),
            "/directory",
        ),
        (&host.config.data_dir, json!({}), "/directory"),
        (&empty, json!({"adopt": true}), "/adopt"),
        (&empty, json!({"erase": true}), "/erase"),
        (&empty, json!({"disk": "WD-1"}), "/disk"),
        (&empty, json!({"directory": null}), "/disk"),
        (
            &empty,
            json!({"directory": null, "disk": "no such disk"}),
            "/disk",
        ),
    ] {
        let problem = refused("other", directory, more).await;
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
    }
    let nowhere = json!({"name": "more", "size": "1MiB", "datastore": "nowhere"});
    let nowhere = serde_json::from_value(nowhere).unwrap();
    let problem = host
        .manager
        .disk_create(&admin(), nowhere)
        .await
        .unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/datastore"));
    assert_eq!(
        fs::read_dir(&empty).unwrap().count(),
        0,
        "nothing was changed"
    );
    let all = host.manager.datastore_list(&ListParams::default()).unwrap();
    assert_eq!(all.items.len(), 2);
}

#[tokio::test]
async fn one_is_renamed_with_what_is_on_it() {
    let mut lab = Lab::new().await;
    let patch = |to: &str| DatastorePatch {
        name: Some(name(to)),
    };
    let manager = lab.host.manager.clone();
    let renamed = manager
        .datastore_patch(&admin(), "fast", patch("nvme"), IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(renamed.name, name("nvme"));
    assert_eq!(lab.on("data").await, name("nvme"));
    let problem = manager
        .datastore_patch(&admin(), "default", patch("mine"), IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    lab.host.restart().await;
    assert_eq!(lab.on("data").await, name("nvme"));
    assert_eq!(content(&lab.here("disks")), CONTENT);
}

#[tokio::test]
async fn one_that_is_missing_is_waited_for() {
    let mut lab = Lab::new().await;
    let away = lab.host.directory.path().join("away");
    // As a disk that is mounted there, and is not any more.
    lab.while_down(|lab| {
        fs::rename(&lab.directory, &away).unwrap();
        fs::create_dir(&lab.directory).unwrap();
    })
    .await;
    let fast = lab.fast();
    assert_eq!(
        (fast.health, fast.size.bytes()),
        (StorageHealth::Missing, 0)
    );
    let problem = fast.problem.unwrap();
    assert!(problem.contains("\"fast\" is missing"), "{problem}");
    let warnings = lab.host.manager.system().warnings;
    assert!(warnings.contains(&problem), "{warnings:?}");
    assert_eq!(fs::read_dir(&lab.directory).unwrap().count(), 0);
    assert_eq!(lab.on("data").await, name("fast"));
    let ended = lab.host.act("web", VmAction::Start).await;
    assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
    let disk = json!({"name": "more", "size": "1MiB", "datastore": "fast"});
    let disk = serde_json::from_value(disk).unwrap();
    let problem = lab
        .host
        .manager
        .disk_create(&admin(), disk)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState, "{problem}");

    lab.while_down(|lab| {
        fs::remove_dir(&lab.directory).unwrap();
        fs::rename(&away, &lab.directory).unwrap();
    })
    .await;
    assert_eq!(lab.fast().health, StorageHealth::Sound);
    assert_eq!(content(&lab.here("disks")), CONTENT);
}

#[tokio::test]
async fn nothing_is_lost_or_left_by_a_manager_that_died() {
    let mut lab = Lab::new().await;
    let leftover = Uuid::now_v7().to_string();
    // In the middle of a move to the other one, and of the creation of a disk.
    lab.while_down(|lab| {
        fs::copy(lab.here("disks"), lab.at_home()).unwrap();
        fs::write(lab.directory.join("disks").join(&leftover), "half").unwrap();
    })
    .await;
    assert_eq!(content(&lab.here("disks")), CONTENT);
    assert!(!lab.at_home().exists(), "the record says where it is");
    assert!(!lab.directory.join("disks").join(&leftover).exists());
    // In the middle of a move away, when all is recorded.
    let started = lab.move_to("default").await;
    succeeds(&lab.host, started).await;
    lab.while_down(|lab| {
        fs::copy(lab.at_home(), lab.here("disks")).unwrap();
    })
    .await;
    assert_eq!(content(&lab.at_home()), CONTENT);
    assert!(!lab.here("disks").exists());
    // An earlier version of Lodge does not know where disks are, and forgets it when it renames one.
    lab.while_down(|lab| fs::rename(lab.at_home(), lab.here("disks")).unwrap())
        .await;
    assert_eq!(lab.on("data").await, name("fast"));
    assert_eq!(content(&lab.here("disks")), CONTENT);
}

#[tokio::test]
async fn what_another_host_left_is_taken_over() {
    let lab = Lab::new().await;
    snapshot(&lab, "before").await;
    lab.host.manager.close().await;
    let other = Host::new().await;
    let problem = create(&other, "old", &lab.directory, json!({})).await;
    assert_eq!(problem.unwrap_err().pointer.as_deref(), Some("/directory"));
    let adopt = create(&other, "old", &lab.directory, json!({"adopt": true}));
    succeeds(&other, adopt.await).await;
    let disks = other
        .manager
        .disk_list(ListParams::default())
        .await
        .unwrap();
    assert_eq!(
        disks.items.len(),
        2,
        "the disk, and what the snapshot has of it"
    );
    for disk in &disks.items {
        assert_eq!(disk.datastore, name("old"));
        assert!(disk.name.as_str().starts_with("recovered-"), "{disk:?}");
        let file = lab.directory.join("disks").join(disk.id.to_string());
        assert_eq!(content(&file), CONTENT);
    }
    let warnings = other.manager.system().warnings;
    assert!(
        warnings.iter().any(|text| text.contains("is there again")),
        "{warnings:?}"
    );
    assert!(disks.items.iter().any(|disk| disk.id == lab.disk));
}
