//! Snapshots of guests, with and without their memory.

use std::fs;
use std::path::PathBuf;

use lodge_api::disk::DiskCreate;
use lodge_api::operation::{Operation, OperationStatus};
use lodge_api::page::ListParams;
use lodge_api::snapshot::{Snapshot, SnapshotClone, SnapshotCreate, VmRevert};
use lodge_api::vm::{VmAction, VmState};
use lodge_api::{ErrorCode, Problem, Size};
use lodge_manager::IfMatch;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{attach, host_with};
use crate::plug::create_disk;
use crate::programs;
use crate::support::{Host, admin, name, wait, within};

/// A guest that counts, with one disk.
async fn counting() -> Host {
    let host = host_with("web", programs::counts()).await;
    let create = DiskCreate {
        name: name("data"),
        size: Some(Size::mib(1)),
        image: None,
        datastore: None,
    };
    let made = host.manager.disk_create(&admin(), create).await.unwrap();
    succeeded(&host, &made).await;
    let patch = json!({"disks": [{"disk": "data"}]});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    host
}

async fn succeeded(host: &Host, operation: &Operation) {
    let operation = wait(&host.manager, operation).await;
    assert_eq!(
        operation.status,
        OperationStatus::Succeeded,
        "{operation:?}"
    );
}

async fn snapshot(host: &Host, snapshot: &str, memory: Option<bool>) -> Result<Snapshot, Problem> {
    let create = SnapshotCreate {
        name: name(snapshot),
        description: "as it was".to_owned(),
        memory,
    };
    let taken = host.manager.vm_snapshot(&admin(), "web", create).await?;
    succeeded(host, &taken).await;
    host.manager.snapshot_view(snapshot).await
}

async fn revert(host: &Host, vm: &str, snapshot: &str) -> Result<(), Problem> {
    let revert = VmRevert {
        snapshot: snapshot.to_owned(),
    };
    let reverted = host.manager.vm_revert(&admin(), vm, revert).await?;
    succeeded(host, &reverted).await;
    Ok(())
}

async fn clone(host: &Host, snapshot: &str, vm: &str, cold: bool) -> Result<(), Problem> {
    let clone = SnapshotClone {
        name: name(vm),
        cold,
    };
    let cloned = host
        .manager
        .snapshot_clone(&admin(), snapshot, clone)
        .await?;
    succeeded(host, &cloned).await;
    Ok(())
}

/// Types a byte; the guest answers with the digit.
async fn counts_to(host: &Host, vm: &str, digit: char) {
    let mut console = attach(host, vm).await;
    console.write_all(b"x").await.unwrap();
    let mut text = Vec::new();
    within(async {
        while !String::from_utf8_lossy(&text).contains(digit) {
            assert!(console.read_buf(&mut text).await.unwrap() > 0, "{text:?}");
        }
    })
    .await;
}

async fn disk_file(host: &Host, disk: &str) -> PathBuf {
    let id = host.manager.disk_view(disk).await.unwrap().id;
    host.config.data_dir.join("disks").join(id.to_string())
}

/// Writes to a disk as its guest would.
async fn write_disk(host: &Host, disk: &str, byte: u8) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options()
        .write(true)
        .open(disk_file(host, disk).await);
    file.unwrap().write_all_at(&[byte; 512], 4096).unwrap();
}

async fn disk_says(host: &Host, disk: &str) -> u8 {
    fs::read(disk_file(host, disk).await).unwrap()[4096]
}

fn files(host: &Host) -> usize {
    let files = fs::read_dir(host.config.data_dir.join("snapshots")).unwrap();
    files.count()
}

pub async fn a_running_guest_goes_back_to_where_it_was() {
    let mut host = counting().await;
    host.done("web", VmAction::Start).await;
    counts_to(&host, "web", '1').await;
    write_disk(&host, "data", 1).await;
    let taken = snapshot(&host, "before", None).await.unwrap();
    assert!(taken.memory);
    assert_eq!((taken.vm.as_str(), files(&host)), ("web", 3));
    assert_eq!(host.state("web"), VmState::Running);
    counts_to(&host, "web", '2').await;
    counts_to(&host, "web", '3').await;
    write_disk(&host, "data", 2).await;
    // What it does now would be lost without a word.
    let problem = revert(&host, "web", "before").await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    host.done("web", VmAction::Kill).await;
    // The configuration comes back too; names stay what they are now.
    let patch = json!({"vcpus": 2, "disks": []});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    for _ in 0..2 {
        revert(&host, "web", "before").await.unwrap();
        assert_eq!(host.state("web"), VmState::Running);
        let vm = host.vm("web");
        assert_eq!((vm.spec.vcpus, vm.spec.disks.len()), (1, 1));
        assert_eq!(disk_says(&host, "data").await, 1);
        counts_to(&host, "web", '2').await;
        // It is a guest like any other: the next manager finds it.
        host.restart().await;
        counts_to(&host, "web", '3').await;
        host.done("web", VmAction::Kill).await;
    }
    // Started without the snapshot it boots.
    host.done("web", VmAction::Start).await;
    counts_to(&host, "web", '1').await;
    host.done("web", VmAction::Kill).await;
    host.manager
        .snapshot_delete(&admin(), "before", IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(files(&host), 0);
    host.manager.close().await;
}

pub async fn a_guest_is_paused_and_resumed_while_it_is_copied() {
    let host = counting().await;
    host.done("web", VmAction::Start).await;
    counts_to(&host, "web", '1').await;
    for (action, state, number) in [
        (VmAction::Pause, VmState::Paused, "one"),
        (VmAction::Resume, VmState::Running, "two"),
    ] {
        let create = SnapshotCreate {
            name: name(number),
            description: String::new(),
            memory: None,
        };
        let taken = host.manager.vm_snapshot(&admin(), "web", create).await;
        host.done("web", action).await;
        succeeded(&host, &taken.unwrap()).await;
        // Whatever comes first: what the user wants is what it does afterwards.
        assert_eq!(host.state("web"), state);
    }
    counts_to(&host, "web", '2').await;
    host.done("web", VmAction::Kill).await;
    for number in ["one", "two"] {
        revert(&host, "web", number).await.unwrap();
        counts_to(&host, "web", '2').await;
        host.done("web", VmAction::Kill).await;
    }
    host.manager.close().await;
}

pub async fn a_warm_template_makes_guests_that_go_on_apart() {
    let host = counting().await;
    host.done("web", VmAction::Start).await;
    counts_to(&host, "web", '1').await;
    write_disk(&host, "data", 7).await;
    // A guest that somebody has paused stays so.
    host.done("web", VmAction::Pause).await;
    snapshot(&host, "template", None).await.unwrap();
    assert_eq!(host.state("web"), VmState::Paused);
    host.done("web", VmAction::Kill).await;
    for vm in ["one", "two"] {
        clone(&host, "template", vm, false).await.unwrap();
        assert_eq!(host.state(vm), VmState::Running);
        counts_to(&host, vm, '2').await;
    }
    counts_to(&host, "one", '3').await;
    counts_to(&host, "two", '3').await;
    assert_ne!(host.vm("one").id, host.vm("two").id);
    assert_ne!(
        disk_file(&host, "one-disk0").await,
        disk_file(&host, "two-disk0").await
    );
    write_disk(&host, "one-disk0", 8).await;
    let disks = ["data", "one-disk0", "two-disk0"];
    for (disk, byte) in disks.into_iter().zip([7, 8, 7]) {
        assert_eq!(disk_says(&host, disk).await, byte, "{disk}");
    }
    // Everything may go in any order.
    host.manager
        .snapshot_delete(&admin(), "template", IfMatch::Any)
        .await
        .unwrap();
    counts_to(&host, "one", '4').await;
    let problem = clone(&host, "template", "three", false).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::NotFound);
    for vm in ["one", "two"] {
        host.done(vm, VmAction::Kill).await;
    }
    host.manager.close().await;
}

pub async fn a_stopped_guest_has_disks_only() {
    let host = counting().await;
    write_disk(&host, "data", 1).await;
    let problem = snapshot(&host, "warm", Some(true)).await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/memory"));
    let taken = snapshot(&host, "cold", None).await.unwrap();
    assert!(!taken.memory);
    assert_eq!(files(&host), 1);
    let problem = snapshot(&host, "cold", None).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::AlreadyExists);
    write_disk(&host, "data", 2).await;
    clone(&host, "cold", "copy", false).await.unwrap();
    assert_eq!(host.state("copy"), VmState::Stopped);
    assert_eq!(disk_says(&host, "copy-disk0").await, 1);
    // A snapshot belongs to one guest.
    let problem = revert(&host, "copy", "cold").await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/snapshot"));
    let problem = clone(&host, "cold", "copy", true).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::AlreadyExists);
    revert(&host, "web", "cold").await.unwrap();
    assert_eq!(host.state("web"), VmState::Stopped);
    assert_eq!(disk_says(&host, "data").await, 1);
    // The disk has grown, and is what it was again.
    let patch = serde_json::from_value(json!({"size": "2MiB"})).unwrap();
    host.manager
        .disk_patch(&admin(), "data", patch, IfMatch::Any)
        .await
        .unwrap();
    revert(&host, "web", "cold").await.unwrap();
    assert_eq!(
        host.manager.disk_view("data").await.unwrap().size,
        Size::mib(1)
    );
    // Without its disk it cannot go back, and nothing happens.
    let patch = json!({"disks": []});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    host.manager
        .disk_delete(&admin(), "data", IfMatch::Any)
        .await
        .unwrap();
    let reverted = VmRevert {
        snapshot: "cold".to_owned(),
    };
    let operation = host.manager.vm_revert(&admin(), "web", reverted).await;
    let operation = wait(&host.manager, &operation.unwrap()).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    assert_eq!(operation.error.unwrap().code, ErrorCode::WrongState);
    let list = host
        .manager
        .snapshot_list(ListParams::default())
        .await
        .unwrap();
    assert_eq!(list.items.len(), 1);
    host.manager.close().await;
}

pub async fn files_of_unfinished_snapshots_are_removed() {
    let mut host = counting().await;
    snapshot(&host, "cold", None).await.unwrap();
    let directory = host.config.data_dir.join("snapshots");
    let stray = "0195cf2e-7c00-7000-8000-000000000000.memory";
    fs::write(directory.join(stray), b"half").unwrap();
    fs::write(directory.join("notes.txt"), b"somebody's own").unwrap();
    host.restart().await;
    assert!(!directory.join(stray).exists());
    assert!(directory.join("notes.txt").exists());
    assert_eq!(files(&host), 2);
    host.manager.close().await;
}

pub async fn a_snapshot_has_what_was_plugged_in() {
    let host = host_with("web", programs::counts()).await;
    for disk in ["first", "second", "third"] {
        create_disk(&host, disk).await;
    }
    let plug = async |disk: &str| {
        let body = serde_json::from_value(json!({"disk": {"disk": disk}})).unwrap();
        host.manager.vm_attach(&admin(), "web", body).await.unwrap();
    };
    let pull = async |disk: &str| {
        let body = serde_json::from_value(json!({"disk": disk, "force": true})).unwrap();
        let pulled = host.manager.vm_detach(&admin(), "web", body).await.unwrap();
        succeeded(&host, &pulled).await;
    };
    let disks = |vm: &str| {
        let disks = host.vm(vm).spec.disks.into_iter();
        disks.map(|disk| disk.disk.to_string()).collect::<Vec<_>>()
    };
    plug("first").await;
    plug("second").await;
    host.done("web", VmAction::Start).await;
    counts_to(&host, "web", '1').await;
    pull("first").await;
    plug("third").await;
    snapshot(&host, "amid", None).await.unwrap();
    pull("second").await;
    assert_eq!(disks("web"), ["third"]);
    host.done("web", VmAction::Kill).await;
    revert(&host, "web", "amid").await.unwrap();
    assert_eq!(disks("web"), ["second", "third"]);
    counts_to(&host, "web", '2').await;
    // It goes on with both, and both can be taken out.
    pull("third").await;
    pull("second").await;
    counts_to(&host, "web", '3').await;
    clone(&host, "amid", "other", false).await.unwrap();
    assert_eq!(disks("other").len(), 2);
    counts_to(&host, "other", '2').await;
    for vm in ["web", "other"] {
        host.done(vm, VmAction::Kill).await;
    }
    host.manager.close().await;
}
