//! Disks and network interfaces that come to running guests and leave them.

use lodge_api::ErrorCode;
use lodge_api::disk::DiskCreate;
use lodge_api::operation::{Operation, OperationStatus};
use lodge_api::vm::{Vm, VmAction, VmDetach};
use lodge_manager::IfMatch;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{attach as console, host_with, reads};
use crate::manager_process::ManagerProcess;
use crate::programs;
use crate::relay::Relay;
use crate::support::{self, Host, admin, wait, within};

pub async fn create_disk(host: &Host, name: &str) {
    let create: DiskCreate = serde_json::from_value(json!({"name": name, "size": "1MiB"})).unwrap();
    let operation = host.manager.disk_create(&admin(), create).await.unwrap();
    wait(&host.manager, &operation).await;
}

async fn attach(host: &Host, vm: &str, body: Value) -> Result<Vm, lodge_api::Problem> {
    let body = serde_json::from_value(body).unwrap();
    within(host.manager.vm_attach(&admin(), vm, body)).await
}

fn named(disk: &str) -> VmDetach {
    VmDetach {
        disk: Some(support::name(disk)),
        ..VmDetach::default()
    }
}

async fn detach(host: &Host, vm: &str, body: VmDetach) -> Operation {
    let operation = host.manager.vm_detach(&admin(), vm, body).await.unwrap();
    wait(&host.manager, &operation).await
}

fn disks(host: &Host, vm: &str) -> Vec<String> {
    let disks = host.vm(vm).spec.disks.into_iter();
    disks.map(|disk| disk.disk.to_string()).collect()
}

async fn users(host: &Host, disk: &str) -> usize {
    host.manager.disk_view(disk).await.unwrap().used_by.len()
}

/// Has the guest do something by typing on its console, and waits for what it prints then.
async fn told(host: &Host, vm: &str, typed: &[u8], prints: &str) {
    let mut console = console(host, vm).await;
    console.write_all(typed).await.unwrap();
    let mut text = Vec::new();
    within(async {
        while !String::from_utf8_lossy(&text).contains(prints) {
            assert!(console.read_buf(&mut text).await.unwrap() > 0, "{text:?}");
        }
    })
    .await;
}

pub async fn a_disk_comes_to_a_running_guest_and_leaves_it() {
    let mut host = host_with("web", programs::lets_go()).await;
    for disk in ["boot", "data", "more"] {
        create_disk(&host, disk).await;
    }
    // One that does not run just has it in its configuration.
    attach(&host, "web", json!({"disk": {"disk": "boot"}}))
        .await
        .unwrap();
    host.done("web", VmAction::Start).await;
    reads(&host, "web", "r").await;
    let vm = attach(&host, "web", json!({"disk": {"disk": "data"}}))
        .await
        .unwrap();
    assert!(!vm.status.restart_pending);
    reads(&host, "web", "ru").await;
    assert_eq!(disks(&host, "web"), ["boot", "data"]);
    let problem = attach(&host, "web", json!({"disk": {"disk": "data"}})).await;
    assert_eq!(
        problem.unwrap_err().pointer.as_deref(),
        Some("/disk/disk"),
        "listed twice"
    );
    let sata = json!({"disk": {"disk": "more", "bus": "sata"}});
    let problem = attach(&host, "web", sata).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::InvalidRequest, "{problem}");
    assert_eq!(disks(&host, "web"), ["boot", "data"]);
    for (body, pointer) in [
        (json!({}), "/disk"),
        (json!({"disk": {"disk": "none"}}), "/disk/disk"),
        (json!({"nic": {"network": "none"}}), "/nic/network"),
    ] {
        let problem = attach(&host, "web", body).await.unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
    }
    // Told of what it has, whoever put it there.
    host.restart().await;
    assert_eq!(users(&host, "data").await, 1);
    let patch = serde_json::from_value(json!({"size": "3MiB"})).unwrap();
    let grown = host
        .manager
        .disk_patch(&admin(), "data", patch, IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(grown.size.bytes(), 3 << 20);

    // The guest does not let go, then it does.
    let impatient = VmDetach {
        timeout_s: Some(1),
        ..named("data")
    };
    let operation = detach(&host, "web", impatient).await;
    let problem = operation.error.expect("it holds on");
    assert_eq!(problem.code, ErrorCode::GuestTimeout);
    assert_eq!(disks(&host, "web"), ["boot", "data"]);
    let detaching = host
        .manager
        .vm_detach(&admin(), "web", named("data"))
        .await
        .unwrap();
    told(&host, "web", b"e", "e").await;
    let operation = wait(&host.manager, &detaching).await;
    assert_eq!(
        operation.status,
        OperationStatus::Succeeded,
        "{operation:?}"
    );
    assert_eq!(disks(&host, "web"), ["boot"]);
    assert!(!host.vm("web").status.restart_pending);
    assert_eq!(users(&host, "data").await, 0);
    host.manager
        .disk_delete(&admin(), "data", IfMatch::Any)
        .await
        .unwrap();
    // One it was started with, by force, and at rest nothing is left of it.
    let forced = VmDetach {
        force: true,
        ..named("boot")
    };
    let operation = detach(&host, "web", forced).await;
    assert_eq!(
        operation.status,
        OperationStatus::Succeeded,
        "{operation:?}"
    );
    assert!(disks(&host, "web").is_empty());
    let problem = host
        .manager
        .vm_detach(&admin(), "web", named("boot"))
        .await
        .unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/disk"));
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

pub async fn waiting_for_a_device_can_be_cancelled_and_a_reset_takes_it() {
    let host = host_with("web", programs::lets_go()).await;
    create_disk(&host, "data").await;
    attach(&host, "web", json!({"disk": {"disk": "data"}}))
        .await
        .unwrap();
    host.done("web", VmAction::Start).await;
    reads(&host, "web", "r").await;
    let patient = || VmDetach {
        timeout_s: Some(3600),
        ..named("data")
    };
    let detaching = host
        .manager
        .vm_detach(&admin(), "web", patient())
        .await
        .unwrap();
    reads(&host, "web", "rd").await;
    let operation = host
        .manager
        .operation_cancel(&admin(), detaching.id)
        .await
        .unwrap();
    assert_eq!(operation.status, OperationStatus::Cancelled);
    // The wish was withdrawn: the guest looks again, and keeps it.
    reads(&host, "web", "rdu").await;
    told(&host, "web", b"e", "e").await;
    assert_eq!(disks(&host, "web"), ["data"]);
    let detaching = host
        .manager
        .vm_detach(&admin(), "web", patient())
        .await
        .unwrap();
    reads(&host, "web", "ed").await;
    host.done("web", VmAction::Reset).await;
    let operation = wait(&host.manager, &detaching).await;
    assert_eq!(
        operation.status,
        OperationStatus::Succeeded,
        "{operation:?}"
    );
    assert!(disks(&host, "web").is_empty());
    // Paused, it lets nothing go.
    attach(&host, "web", json!({"disk": {"disk": "data"}}))
        .await
        .unwrap();
    host.done("web", VmAction::Pause).await;
    let problem = host.manager.vm_detach(&admin(), "web", named("data")).await;
    assert_eq!(problem.unwrap_err().code, ErrorCode::WrongState);
    host.done("web", VmAction::Kill).await;
    let operation = detach(&host, "web", named("data")).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert!(disks(&host, "web").is_empty(), "of the configuration only");
    host.manager.close().await;
}

/// Whenever it is killed, configuration and guest have the same disks afterwards, and what was acknowledged is done.
pub async fn a_manager_killed_while_devices_come_and_go_leaves_no_doubt() {
    let mut host = host_with("web", programs::lets_go()).await;
    create_disk(&host, "data").await;
    host.done("web", VmAction::Start).await;
    reads(&host, "web", "r").await;
    host.manager.close().await;
    for round in 0..12_usize {
        let mut process = ManagerProcess::start(&host, "plug");
        let mut lines = 0;
        let mut last = String::new();
        // What is still in the pipe after the kill is read to its end.
        while let Some(Ok(line)) = process.lines.next() {
            lines += 1;
            last = line;
            if lines == 2 + round % 6 {
                // A little further into what is under way each time.
                for _ in 0..round * 30_000 {
                    std::hint::spin_loop();
                }
                process.child.kill().unwrap();
            }
        }
        process.child.wait().unwrap();
        host.manager = support::open(&host.config).await;
        let has_it = !disks(&host, "web").is_empty();
        match last.as_str() {
            "attached" => assert!(has_it, "{round}"),
            "detached" => assert!(!has_it, "{round}"),
            _ => {}
        }
        assert_eq!(users(&host, "data").await, usize::from(has_it), "{round}");
        if !has_it {
            // Refused by a guest that has it all the same.
            attach(&host, "web", json!({"disk": {"disk": "data"}}))
                .await
                .unwrap();
        }
        let forced = VmDetach {
            force: true,
            ..named("data")
        };
        let operation = detach(&host, "web", forced).await;
        // Refused by a guest that has it not.
        assert_eq!(
            operation.status,
            OperationStatus::Succeeded,
            "{round}: {operation:?}"
        );
        assert_eq!(
            (disks(&host, "web").len(), users(&host, "data").await),
            (0, 0)
        );
        host.manager.close().await;
    }
    host.manager = support::open(&host.config).await;
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

/// That a device is out is found by a look at the guest, too, and may be told when the same one is in again.
pub async fn what_is_told_late_of_a_device_takes_no_other_out() {
    let mut host = host_with("web", programs::lets_go()).await;
    create_disk(&host, "data").await;
    host.done("web", VmAction::Start).await;
    reads(&host, "web", "r").await;
    host.manager.close().await;
    let relay = Relay::start(&host, "web");
    host.manager = support::open(&host.config).await;
    for _ in 0..2 {
        attach(&host, "web", json!({"disk": {"disk": "data"}}))
            .await
            .unwrap();
        // The guest's task hears what there is to hear.
        host.done("web", VmAction::Pause).await;
        host.done("web", VmAction::Resume).await;
        assert_eq!(
            (disks(&host, "web"), users(&host, "data").await),
            (vec!["data".to_owned()], 1)
        );
        let forced = VmDetach {
            force: true,
            ..named("data")
        };
        let operation = detach(&host, "web", forced).await;
        assert_eq!(operation.status, OperationStatus::Succeeded);
        assert_eq!(
            (disks(&host, "web").len(), users(&host, "data").await),
            (0, 0)
        );
    }
    host.manager.close().await;
    relay.end();
    host.manager = support::open(&host.config).await;
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}
