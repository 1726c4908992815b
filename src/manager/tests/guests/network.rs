//! Guests' interfaces on bridges.

use std::process::Command;

use lodge_api::ErrorCode;
use lodge_api::image::ImageKind;
use lodge_api::network::NetworkCreate;
use lodge_api::vm::{VmAction, VmDetach, VmState};
use lodge_manager::IfMatch;
use serde_json::json;

use crate::support::{self, Host, admin, spec};
use crate::{code, programs, restored_network};

/// In a network namespace of its own, so that the machine's own network stays as it is.
pub async fn guests_get_taps_on_their_network() {
    let allowed = Command::new("unshare").args(["--net", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("SKIPPED: this machine allows no network namespaces");
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .arg("network")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Taps in this process's network namespace (which /sys need not show).
fn taps() -> usize {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let taps = text.lines().filter(|line| line.trim().starts_with("lgt"));
    taps.count()
}

/// Queues of taps that the monitor of the guest has.
fn queues(host: &Host) -> usize {
    let pid = host.vm("web").status.pid.expect("it runs");
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let descriptors = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let taps = descriptors.filter(|file| file.ends_with("net/tun"));
    taps.count()
}

/// By this machine's kernel, where that can; both ends in the order of the guest's interfaces.
async fn interfaces_are_limited(host: &Host) {
    let caller = admin();
    let merge = async |limits: serde_json::Value| {
        let mut nics = serde_json::to_value(host.vm("web").spec.nics).unwrap();
        nics[0]["limits"] = limits;
        let patch = json!({"nics": nics});
        let merged = host
            .manager
            .vm_merge(&caller, "web", patch, IfMatch::Any)
            .await;
        merged.map(|vm| vm.status.restart_pending)
    };
    let problem = merge(json!({"receive_mbps": 0})).await.unwrap_err();
    let pointer = problem.pointer.as_deref();
    assert_eq!(pointer, Some("/nics/0/limits/receive_mbps"));
    match merge(json!({"receive_mbps": 100, "transmit_mbps": 100})).await {
        Ok(pending) => assert!(!pending),
        Err(problem) => {
            println!("not all limits of interfaces hold here: {problem}");
            assert_eq!(problem.code, ErrorCode::InvalidRequest, "{problem}");
            assert_eq!(problem.pointer.as_deref(), Some("/nics/0/limits"));
            assert!(problem.detail.contains("the kernel has no"), "{problem}");
            assert!(host.vm("web").spec.nics[0].limits.is_none());
        }
    }
    match merge(json!({"receive_mbps": 200})).await {
        Ok(pending) => assert!(!pending),
        Err(problem) => assert!(problem.detail.contains("sch_tbf"), "{problem}"),
    }
}

pub async fn network_scenario() {
    let mut host = Host::new().await;
    host.manager.close().await;
    host.config.manage_network = true;
    restored_network::add_links();
    host.manager = support::open(&host.config).await;
    let warnings = host.manager.warnings();
    if warnings.iter().any(|warning| warning.contains("network")) {
        println!("SKIPPED: this machine makes no bridges: {warnings:?}");
        host.manager.close().await;
        return;
    }
    let lan = NetworkCreate {
        name: support::name("lan"),
        uplink: None,
    };
    host.manager.network_create(&admin(), lan).await.unwrap();
    host.upload(
        "kernel",
        ImageKind::Kernel,
        &code::kernel(programs::obedient()),
    )
    .await;
    let mut wanted = spec("web");
    wanted.vcpus = 2;
    let nics = json!([{"queues": 2}, {"network": "lan", "model": "e1000e"}]);
    wanted.nics = serde_json::from_value(nics).unwrap();
    host.manager.vm_create(&admin(), wanted).await.unwrap();
    host.done("web", VmAction::Start).await;
    assert_eq!((taps(), queues(&host)), (2, 3));
    let problem = host
        .manager
        .network_delete(&admin(), "lan", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse);
    restored_network::networks_are_restored(&host).await;
    assert_eq!(taps(), 2);
    host.restart().await;
    assert_eq!(host.state("web"), VmState::Running);
    assert_eq!(taps(), 2, "kept over a restart of the manager");
    interfaces_are_limited(&host).await;
    let lan = serde_json::from_value(json!({"nic": {"network": "lan", "queues": 2}})).unwrap();
    let vm = host.manager.vm_attach(&admin(), "web", lan).await.unwrap();
    assert!(!vm.status.restart_pending);
    assert_eq!((taps(), queues(&host)), (3, 5), "it runs");
    for (nic, code) in [(1, Some(ErrorCode::InvalidRequest)), (2, None), (0, None)] {
        let body = VmDetach {
            nic: vm.spec.nics[nic].mac.clone(),
            force: true,
            ..VmDetach::default()
        };
        match (host.manager.vm_detach(&admin(), "web", body).await, code) {
            (Ok(operation), None) => {
                let operation = support::wait(&host.manager, &operation).await;
                assert_eq!(operation.error, None);
            }
            // The Intel card.
            (Err(problem), Some(code)) => assert_eq!(problem.code, code, "{problem}"),
            (other, _) => panic!("{nic}: {other:?}"),
        }
    }
    assert_eq!((taps(), host.vm("web").spec.nics.len()), (1, 1));
    assert_eq!(queues(&host), 1);
    let again = serde_json::from_value(json!({"nic": vm.spec.nics[0]})).unwrap();
    host.manager
        .vm_attach(&admin(), "web", again)
        .await
        .unwrap();
    assert_eq!((taps(), queues(&host)), (2, 3));
    // At once again: the taps have just been released.
    host.done("web", VmAction::Kill).await;
    host.done("web", VmAction::Start).await;
    host.done("web", VmAction::Stop).await;
    host.manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    host.manager
        .network_delete(&admin(), "lan", IfMatch::Any)
        .await
        .unwrap();
    host.manager.close().await;
}
