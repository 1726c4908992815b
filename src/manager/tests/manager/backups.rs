//! Backups that the host writes by itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lodge_api::backup::{Backup, BackupDeleteParams, BackupListParams};
use lodge_api::event::EventBody;
use lodge_api::image::ImageKind;
use lodge_api::operation::{Operation, OperationStatus, Progress};
use lodge_api::page::ListParams;
use lodge_api::{ErrorCode, Problem};
use lodge_manager::IfMatch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Host, admin, bzimage, event, make_disk, spec, wait, within};

const MIB: u64 = 1 << 20;

/// A host with a guest `web`, whose disk `data` has 24 MiB, and a directory for backups.
struct Lab {
    host: Host,
    directory: PathBuf,
}

impl Lab {
    async fn new() -> Self {
        let host = Host::new().await;
        let directory = host.directory.path().join("safe");
        fs::create_dir(&directory).unwrap();
        host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
        let disk = json!({"name": "data", "size": "24MiB"});
        assert_eq!(make_disk(&host, disk).await, OperationStatus::Succeeded);
        let mut wanted = spec("web");
        wanted.disks = serde_json::from_value(json!([{"disk": "data"}])).unwrap();
        host.manager.vm_create(&admin(), wanted).await.unwrap();
        Self { host, directory }
    }

    async fn target(&self, body: Value) -> Result<Operation, Problem> {
        let create = serde_json::from_value(body).unwrap();
        let started = self.host.manager.target_create(&admin(), create).await;
        self.ended(started).await
    }

    /// Adds the target `safe`, in the directory.
    async fn safe(&self) {
        let body = json!({"name": "safe", "kind": "directory", "directory": self.directory});
        self.target(body).await.unwrap();
    }

    /// The operation when it has succeeded, or why it has not.
    async fn ended(&self, started: Result<Operation, Problem>) -> Result<Operation, Problem> {
        let ended = wait(&self.host.manager, &started?).await;
        match ended.error.clone() {
            Some(problem) => Err(problem),
            None => Ok(ended),
        }
    }

    async fn back_up(&self, target: &str, full: bool) -> Result<Operation, Problem> {
        let body = serde_json::from_value(json!({"target": target, "full": full})).unwrap();
        let started = self.host.manager.vm_backup(&admin(), "web", body).await;
        self.ended(started).await
    }

    fn backups(&self) -> Vec<Backup> {
        let params = BackupListParams::default();
        self.host.manager.backup_list(params).unwrap().items
    }

    async fn restore(&self, backup: &Backup, body: Value) -> Result<Operation, Problem> {
        let body = serde_json::from_value(body).unwrap();
        let id = backup.id.to_string();
        let started = self.host.manager.backup_restore(&admin(), &id, body).await;
        self.ended(started).await
    }

    async fn verify(&self, backup: &Backup) -> Result<Backup, Problem> {
        let id = backup.id.to_string();
        let body = serde_json::from_value(json!({})).unwrap();
        let started = self.host.manager.backup_verify(&admin(), &id, body).await;
        self.ended(started).await?;
        self.host.manager.backup_view(&id)
    }

    async fn delete(&self, backup: &Backup, with_later: bool) -> Result<Operation, Problem> {
        let params = BackupDeleteParams {
            with_later,
            wait: None,
        };
        let id = backup.id.to_string();
        let started = self.host.manager.backup_delete(&admin(), &id, params).await;
        self.ended(started).await
    }

    async fn disk(&self, name: &str) -> PathBuf {
        let id = self.host.manager.disk_view(name).await.unwrap().id;
        self.host.config.data_dir.join("disks").join(id.to_string())
    }

    async fn write(&self, at: u64, content: &[u8]) {
        let file = File::options()
            .write(true)
            .open(self.disk("data").await)
            .unwrap();
        file.write_all_at(content, at).unwrap();
    }

    async fn content(&self, disk: &str) -> Vec<u8> {
        fs::read(self.disk(disk).await).unwrap()
    }

    /// The files of the guest's folder in the directory.
    fn files(&self) -> Vec<String> {
        let folder = fs::read_dir(self.directory.join("web")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    async fn snapshots(&self) -> Vec<String> {
        let page = self.host.manager.snapshot_list(ListParams::default());
        let items = page.await.unwrap().items.into_iter();
        items.map(|snapshot| snapshot.name.to_string()).collect()
    }

    /// Two backups, the second of what changed. Returns what was on the disk at each.
    async fn two(&self, target: &str) -> [Vec<u8>; 2] {
        self.write(MIB, &noise(18 * MIB)).await;
        self.back_up(target, false).await.unwrap();
        let first = self.content("data").await;
        self.write(2 * MIB, b"changed").await;
        self.back_up(target, false).await.unwrap();
        [first, self.content("data").await]
    }
}

/// Bytes that are not all alike.
fn noise(length: u64) -> Vec<u8> {
    let mut state = 1_u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

#[tokio::test]
async fn backups_have_what_changed_and_come_back() {
    let lab = Lab::new().await;
    lab.safe().await;
    let [first, second] = lab.two("safe").await;
    assert_eq!(
        lab.files(),
        [
            "backups.json",
            "data.0001.qcow2",
            "data.0002.qcow2",
            "vm.0001.json",
            "vm.0002.json"
        ]
    );
    let backups = lab.backups();
    let [one, two] = backups.as_slice() else {
        panic!("{backups:?}");
    };
    assert_eq!((one.number, &one.made_of[..]), (1, &[][..]));
    assert_eq!((two.number, &two.made_of[..]), (2, &[1][..]));
    // How much of it changed is known where the filesystem shares extents.
    assert!(one.size.bytes() > 18 * MIB, "{backups:?}");
    assert_eq!(lab.snapshots().await.len(), 1, "that of the last one");

    for (backup, expected) in [(one, &first), (two, &second)] {
        let name = format!("again-{}", backup.number);
        lab.restore(backup, json!({"name": name})).await.unwrap();
        assert_eq!(&lab.content(&format!("{name}-disk0")).await, expected);
    }
    let problem = lab.restore(two, json!({})).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::AlreadyExists, "{problem:?}");
    // When it is gone, it is the same again.
    let before = lab.host.vm("web");
    let manager = &lab.host.manager;
    manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    let problem = lab.restore(two, json!({})).await.unwrap_err();
    assert!(problem.detail.contains("disk \"data\""), "{problem:?}");
    manager
        .disk_delete(&admin(), "data", IfMatch::Any)
        .await
        .unwrap();
    lab.restore(two, json!({})).await.unwrap();
    let after = lab.host.vm("web");
    assert_eq!((after.id, after.spec), (before.id, before.spec));
    assert_eq!(lab.content("data").await, second);
}

#[tokio::test]
async fn full_ones_need_nothing_before() {
    let lab = Lab::new().await;
    lab.safe().await;
    lab.two("safe").await;
    let ended = lab.back_up("safe", true).await.unwrap();
    assert!(
        ended.log.iter().any(|line| line.contains("all of it")),
        "{ended:?}"
    );
    let backups = lab.backups();
    let problem = lab.delete(&backups[0], false).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse);
    assert_eq!(lab.backups().len(), 3, "nothing went");
    lab.delete(&backups[0], true).await.unwrap();
    assert_eq!(
        lab.files(),
        ["backups.json", "data.0003.qcow2", "vm.0003.json"]
    );
    let left = lab.backups();
    assert_eq!(left.len(), 1);
    lab.verify(&left[0]).await.unwrap();
    // The next is of the last, whose snapshot is there.
    lab.back_up("safe", false).await.unwrap();
    assert_eq!(lab.backups()[1].made_of, [3]);
    // Without that it is whole.
    for snapshot in lab.snapshots().await {
        let manager = &lab.host.manager;
        manager
            .snapshot_delete(&admin(), &snapshot, IfMatch::Any)
            .await
            .unwrap();
    }
    lab.back_up("safe", false).await.unwrap();
    assert!(lab.backups()[2].made_of.is_empty());
}

#[tokio::test]
async fn what_broke_off_is_in_no_list_and_goes() {
    let mut lab = Lab::new().await;
    lab.safe().await;
    lab.two("safe").await;
    let folder = lab.directory.join("web");
    // As a power cut leaves it: a file under its name, one without, and a snapshot.
    for left in ["data.0003.qcow2", "vm.0003.json", ".new-1-2-3"] {
        fs::write(folder.join(left), "half").unwrap();
    }
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    lab.host.restart().await;
    assert_eq!(lab.backups().len(), 2);
    lab.back_up("safe", false).await.unwrap();
    let files = lab.files();
    assert_eq!(files.len(), 8, "{files:?}");
    assert!(
        files.contains(&"notes.txt".to_owned()),
        "somebody's own stays"
    );
    let third = &lab.backups()[2];
    assert_eq!(third.made_of, [2]);
    lab.verify(third).await.unwrap();

    // One that cannot be finished leaves nothing.
    fs::remove_dir_all(&lab.directory).unwrap();
    let problem = lab.back_up("safe", false).await.unwrap_err();
    assert_eq!(
        problem.pointer.as_deref(),
        Some("/directory"),
        "{problem:?}"
    );
    fs::create_dir(&lab.directory).unwrap();
    lab.back_up("safe", false).await.unwrap();
    assert!(
        lab.backups()[0].made_of.is_empty(),
        "nothing is there to begin with"
    );
    assert_eq!(lab.snapshots().await.len(), 1);
}

#[tokio::test]
async fn damage_is_found() {
    let lab = Lab::new().await;
    lab.safe().await;
    lab.two("safe").await;
    let backups = lab.backups();
    let good = lab.verify(&backups[1]).await.unwrap();
    assert_eq!(good.verified, Some(true), "{good:?}");
    let file = lab.directory.join("web/data.0001.qcow2");
    let opened = File::options().write(true).open(&file).unwrap();
    let end = opened.metadata().unwrap().len();
    opened.write_all_at(b"?", end - 1).unwrap();
    // What is made of it is as bad.
    for backup in &backups {
        let problem = lab.verify(backup).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::ChecksumMismatch, "{problem:?}");
        let problem = lab
            .restore(backup, json!({"name": "bad"}))
            .await
            .unwrap_err();
        assert_eq!(problem.code, ErrorCode::ChecksumMismatch, "{problem:?}");
    }
    assert!(
        lab.backups()
            .iter()
            .all(|backup| backup.verified == Some(false))
    );
    assert!(lab.host.manager.vm_view("bad").is_err());
    assert_eq!(lab.host.files("disks"), 1, "nothing stays");
    fs::remove_file(&file).unwrap();
    let problem = lab.verify(&backups[0]).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn targets_are_tried_and_found_again() {
    let lab = Lab::new().await;
    let refused = async |body: Value| lab.target(body).await.unwrap_err();
    let relative = json!({"name": "x", "kind": "directory", "directory": "safe"});
    assert_eq!(
        refused(relative).await.pointer.as_deref(),
        Some("/directory")
    );
    let own = json!({"name": "x", "kind": "directory", "directory": lab.host.config.data_dir});
    assert_eq!(refused(own).await.pointer.as_deref(), Some("/directory"));
    let nowhere = json!({"name": "x", "kind": "directory", "directory": "/nowhere"});
    assert_eq!(
        refused(nowhere).await.pointer.as_deref(),
        Some("/directory")
    );
    let other = json!({"name": "x", "kind": "directory", "datastore": "nothing"});
    assert_eq!(refused(other).await.pointer.as_deref(), Some("/datastore"));
    let mixed = json!({"name": "x", "kind": "directory", "directory": "/a", "bucket": "b"});
    assert_eq!(refused(mixed).await.pointer.as_deref(), Some("/bucket"));
    let bare = json!({"name": "x", "kind": "s3", "endpoint": "http://127.0.0.1:9"});
    assert_eq!(refused(bare).await.pointer.as_deref(), Some("/bucket"));
    assert!(
        lab.host
            .manager
            .target_list(&ListParams::default())
            .unwrap()
            .items
            .is_empty()
    );

    lab.safe().await;
    assert_eq!(
        fs::read_dir(&lab.directory).unwrap().count(),
        0,
        "the test leaves nothing"
    );
    lab.two("safe").await;
    let before = lab.backups();
    let manager = &lab.host.manager;
    manager
        .target_delete(&admin(), "safe", IfMatch::Any)
        .await
        .unwrap();
    assert!(lab.backups().is_empty() && lab.snapshots().await.is_empty());
    lab.safe().await;
    let found = lab.backups();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].made_of, before[1].made_of);
    lab.restore(&found[1], json!({"name": "found"}))
        .await
        .unwrap();
    let target = manager.target_view("safe").unwrap();
    assert_eq!(target.backups, 2);

    // One on a datastore is in a folder of that.
    let on = json!({"name": "here", "kind": "directory", "datastore": "default"});
    lab.target(on).await.unwrap();
    lab.back_up("here", false).await.unwrap();
    assert!(
        lab.host
            .config
            .data_dir
            .join("backups/web/backups.json")
            .exists()
    );
    // Another guest of the same name has a folder of its own.
    manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    let other = manager.vm_create(&admin(), spec("web")).await.unwrap();
    lab.back_up("here", false).await.unwrap();
    let own = format!("backups/{}/backups.json", other.id);
    assert!(lab.host.config.data_dir.join(own).exists());
}

#[tokio::test]
async fn schedules_are_kept() {
    let mut lab = Lab::new().await;
    let manager = &lab.host.manager;
    let schedule = json!({"backup_schedule": {"target": "safe", "every_minutes": 60, "keep": 1}});
    let problem = manager
        .vm_merge(&admin(), "web", schedule.clone(), IfMatch::Any)
        .await;
    let pointer = problem.unwrap_err().pointer;
    assert_eq!(pointer.as_deref(), Some("/backup_schedule/target"));
    lab.safe().await;
    manager
        .vm_merge(&admin(), "web", schedule, IfMatch::Any)
        .await
        .unwrap();
    let problem = manager
        .target_delete(&admin(), "safe", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse);
    // A manager looks first when it starts.
    lab.host.restart().await;
    let mut events = lab.host.listen();
    if lab.backups().is_empty() {
        event(&mut events, |body| ended(body, OperationStatus::Succeeded)).await;
    }
    assert_eq!(lab.backups().len(), 1);

    // What fails is told and shown, and tried again later, and not at once.
    let manager = &lab.host.manager;
    let away = lab.directory.with_extension("away");
    fs::rename(&lab.directory, &away).unwrap();
    for backup in lab.backups() {
        let problem = lab.delete(&backup, false).await.unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some("/directory"));
    }
    let other = json!({"name": "gone", "kind": "directory", "directory": away});
    lab.target(other).await.unwrap();
    fs::rename(&away, &lab.directory).unwrap();
    let schedule = json!({"backup_schedule": {"target": "gone", "every_minutes": 60}});
    let mut events = lab.host.listen();
    // It finds the backup of the other target there, which is not due again.
    manager
        .vm_merge(&admin(), "web", schedule, IfMatch::Any)
        .await
        .unwrap();
    let found = lab
        .backups()
        .into_iter()
        .find(|backup| backup.target.as_str() == "gone");
    assert!(found.is_some());
    manager
        .vm_create(&admin(), {
            let mut another = spec("other");
            let schedule = json!({"target": "gone", "every_minutes": 60});
            another.backup_schedule = serde_json::from_value(schedule).unwrap();
            another
        })
        .await
        .unwrap();
    let told = |body: &EventBody| matches!(body, EventBody::System { message } if message.contains("tried again in 5 minutes"));
    event(&mut events, told).await;
    let warnings = manager.system().warnings;
    let warned = |warning: &String| warning.contains("scheduled backup of guest other");
    assert!(warnings.iter().any(warned), "{warnings:?}");
}

fn ended(body: &EventBody, status: OperationStatus) -> bool {
    matches!(body, EventBody::Operation { operation }
        if operation.kind == "vm_backup" && operation.status == status)
}

/// An S3 service on this machine, which ends when it is dropped.
struct Service {
    process: Child,
    port: String,
}

impl Service {
    fn start() -> Self {
        // Debian's, for which python3-botocore is.
        let mut process = Command::new("/usr/bin/python3")
            .args(["-c", include_str!("../../../../tests/src/s3.py")])
            .args(["backups", "KEYID", "the/secret+key"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut port).unwrap();
        let port = port.trim().to_owned();
        Self { process, port }
    }

    fn target(&self, field: &str, value: &str) -> Value {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let mut body = json!({"name": "cloud", "kind": "s3", "endpoint": endpoint, "region": "eu-1",
            "bucket": "backups", "prefix": "lab/one", "access_key": "KEYID", "secret_key": "the/secret+key"});
        body[field] = value.into();
        body
    }
}

impl Service {
    fn signal(&self, signal: Signal) {
        let process = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(process), signal).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
async fn buckets_are_as_folders() {
    let lab = Lab::new().await;
    let service = Service::start();
    for (field, wrong) in [
        ("secret_key", "another"),
        ("access_key", "NOBODY"),
        ("bucket", "no-such"),
        ("bucket", "No"),
        ("prefix", "/a"),
        ("endpoint", "http://127.0.0.1:1/bucket"),
    ] {
        let problem = lab.target(service.target(field, wrong)).await.unwrap_err();
        let pointer = format!("/{field}");
        assert_eq!(problem.pointer.as_ref(), Some(&pointer), "{problem:?}");
        assert!(
            !format!("{problem:?}").contains("secret+key"),
            "{problem:?}"
        );
    }
    lab.target(service.target("name", "cloud")).await.unwrap();
    let shown = lab.host.manager.target_view("cloud").unwrap();
    let shown = serde_json::to_string(&shown).unwrap();
    assert!(
        shown.contains("KEYID") && !shown.contains("secret"),
        "{shown}"
    );

    // The first is more than a part.
    let [first, second] = lab.two("cloud").await;
    let backups = lab.backups();
    assert!(backups[0].size.bytes() > 17 * MIB, "{backups:?}");
    assert_eq!(backups[1].made_of, [1]);
    for (backup, expected) in backups.iter().zip([&first, &second]) {
        assert_eq!(lab.verify(backup).await.unwrap().verified, Some(true));
        let name = format!("again-{}", backup.number);
        lab.restore(backup, json!({"name": name})).await.unwrap();
        assert_eq!(&lab.content(&format!("{name}-disk0")).await, expected);
    }
    lab.delete(&backups[1], false).await.unwrap();
    lab.back_up("cloud", false).await.unwrap();
    let patch = serde_json::from_value(json!({"secret_key": "another"})).unwrap();
    let manager = &lab.host.manager;
    let started = manager
        .target_patch(&admin(), "cloud", patch, IfMatch::Any)
        .await;
    let problem = lab.ended(started).await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/secret_key"));
    // It is reached as before.
    assert_eq!(lab.backups().len(), 2);
    lab.back_up("cloud", true).await.unwrap();
    // One that is given up in the middle leaves nothing.
    service.signal(Signal::SIGUSR1);
    let body = serde_json::from_value(json!({"target": "cloud", "full": true})).unwrap();
    let started = manager.vm_backup(&admin(), "web", body).await.unwrap();
    // Not each step of its progress is an event.
    within(async {
        let writes = |now: &Progress| now.phase == "writing data";
        while !manager
            .operation_view(started.id)
            .unwrap()
            .progress
            .as_ref()
            .is_some_and(writes)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    manager
        .operation_cancel(&admin(), started.id)
        .await
        .unwrap();
    let ended = wait(manager, &started).await;
    assert_eq!(ended.status, OperationStatus::Cancelled, "{ended:?}");
    service.signal(Signal::SIGUSR1);
    assert_eq!((lab.backups().len(), lab.snapshots().await.len()), (3, 1));
    // Nobody has to wait for a service that does not answer.
    service.signal(Signal::SIGSTOP);
    let body = serde_json::from_value(json!({"target": "cloud"})).unwrap();
    let started = manager.vm_backup(&admin(), "web", body).await.unwrap();
    let again = serde_json::from_value(json!({"target": "cloud"})).unwrap();
    let problem = manager.vm_backup(&admin(), "web", again).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse, "one at a time");
    manager
        .operation_cancel(&admin(), started.id)
        .await
        .unwrap();
    let ended = wait(manager, &started).await;
    assert_eq!(ended.status, OperationStatus::Cancelled, "{ended:?}");
    service.signal(Signal::SIGCONT);
    // What is there is known to whoever adds it again.
    manager
        .target_delete(&admin(), "cloud", IfMatch::Any)
        .await
        .unwrap();
    lab.target(service.target("name", "other")).await.unwrap();
    assert_eq!(lab.backups().len(), 3);
}
