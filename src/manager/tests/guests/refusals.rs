//! What a guest is not given, and what may not be done while it runs.

use lodge_api::ErrorCode;
use lodge_api::disk::DiskCreate;
use lodge_api::image::ImageKind;
use lodge_api::operation::OperationStatus;
use lodge_api::vm::{VmAction, VmState};
use lodge_manager::IfMatch;
use serde_json::json;

use crate::common::host_with;
use crate::programs;
use crate::support::{Host, admin, spec, wait};

pub async fn what_is_no_kernel_is_said_when_it_is_started() {
    let host = Host::new().await;
    // Passes for a compressed kernel, and is none inside.
    host.upload("kernel", ImageKind::Kernel, b"\x1f\x8b\x08\0 nothing in it")
        .await;
    host.manager.vm_create(&admin(), spec("web")).await.unwrap();
    let operation = host.act("web", VmAction::Start).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    let problem = operation.error.unwrap();
    assert_eq!(
        problem.pointer.as_deref(),
        Some("/boot/kernel"),
        "{problem}"
    );
    let status = host.vm("web").status;
    assert_eq!(status.state, VmState::Stopped);
    assert!(status.reason.unwrap().contains("could not be started"));
    let left = std::fs::read_dir(host.config.run_dir.join("vms")).unwrap();
    assert_eq!(left.count(), 0);
    host.manager.close().await;
}

pub async fn a_disk_is_written_by_one_guest_only() {
    let host = host_with("one", programs::obedient()).await;
    let create: DiskCreate =
        serde_json::from_value(json!({"name": "data", "size": "1MiB"})).unwrap();
    let operation = host.manager.disk_create(&admin(), create).await.unwrap();
    wait(&host.manager, &operation).await;
    host.manager.vm_create(&admin(), spec("two")).await.unwrap();
    for vm in ["one", "two"] {
        let patch = json!({"disks": [{"disk": "data"}]});
        host.manager
            .vm_merge(&admin(), vm, patch, IfMatch::Any)
            .await
            .unwrap();
    }
    host.done("one", VmAction::Start).await;
    let operation = host.act("two", VmAction::Start).await;
    let problem = operation.error.expect("refused");
    assert_eq!(problem.code, ErrorCode::InUse);
    assert!(problem.detail.contains("\"one\""), "{problem}");
    assert_eq!(problem.pointer.as_deref(), Some("/disks/0/disk"));
    let patch = serde_json::from_value(json!({"name": "other"})).unwrap();
    let problem = host
        .manager
        .disk_patch(&admin(), "data", patch, IfMatch::Any)
        .await;
    assert_eq!(problem.unwrap_err().code, ErrorCode::InUse);
    host.done("one", VmAction::Stop).await;
    host.done("two", VmAction::Start).await;
    host.done("two", VmAction::Stop).await;
    host.manager.close().await;
}

pub async fn memory_that_is_not_there_is_not_given() {
    let host = host_with("web", programs::idle()).await;
    let all = host.manager.system().hardware.memory.bytes() >> 20;
    let patch = json!({"memory": format!("{all}MiB")});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    let operation = host.act("web", VmAction::Start).await;
    let problem = operation.error.expect("refused");
    assert_eq!(problem.code, ErrorCode::InsufficientResources);
    host.manager.close().await;
}

pub async fn a_running_guest_cannot_be_deleted_and_shows_what_is_pending() {
    let host = host_with("web", programs::obedient()).await;
    host.done("web", VmAction::Start).await;
    let problem = host
        .manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    let patch = json!({"autostart": true});
    let vm = host
        .manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    assert!(!vm.status.restart_pending);
    let patch = json!({"vcpus": 2});
    let vm = host
        .manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    assert!(vm.status.restart_pending);
    host.done("web", VmAction::Stop).await;
    assert!(!host.vm("web").status.restart_pending);
    host.manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    host.manager.close().await;
}
