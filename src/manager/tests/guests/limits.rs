//! What a running guest is held to.

use std::fs;

use lodge_api::ErrorCode;
use lodge_api::disk::DiskCreate;
use lodge_api::vm::VmAction;
use lodge_manager::IfMatch;
use serde_json::json;

use crate::common::host_with;
use crate::programs;
use crate::support::{Host, admin, wait};

/// What a guest's cgroup says.
fn of_group(host: &Host, vm: &str, file: &str) -> String {
    let mount = lodge_host::cgroup::mount_point().unwrap();
    let path = mount.join("lodge").join(host.vm(vm).id.to_string());
    let text = fs::read_to_string(path.join(file)).unwrap();
    text.trim().to_owned()
}

pub async fn processor_time_is_limited_while_a_guest_runs_or_that_is_refused() {
    let caller = admin();
    let mut host = host_with("web", programs::obedient()).await;
    host.done("web", VmAction::Start).await;
    let all = json!({"cpu": {"shares": 200, "limit": 150, "affinity": "0"}});
    let merged = host.manager.vm_merge(&caller, "web", all, IfMatch::Any);
    let merged = merged.await;
    let controls = host.manager.system().controls;
    let (true, Some(_)) = (controls.cpu, &controls.processors) else {
        println!("no cgroup controllers for processors here: limits are refused");
        let problem = merged.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidRequest);
        let pointer = problem.pointer.unwrap();
        assert!(pointer.starts_with("/cpu/"), "{pointer}");
        assert!(problem.detail.contains("cgroup controller"));
        assert_eq!(host.vm("web").spec.cpu.shares, None);
        assert!(!host.vm("web").status.restart_pending);
        host.done("web", VmAction::Stop).await;
        host.manager.close().await;
        return;
    };
    assert!(!merged.unwrap().status.restart_pending);
    assert_eq!(of_group(&host, "web", "cpu.weight"), "200");
    assert_eq!(of_group(&host, "web", "cpu.max"), "150000 100000");
    assert_eq!(of_group(&host, "web", "cpuset.cpus"), "0");

    let missing = json!({"cpu": {"affinity": "0,8191"}});
    let merged = host.manager.vm_merge(&caller, "web", missing, IfMatch::Any);
    let problem = merged.await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/cpu/affinity"));
    assert_eq!(of_group(&host, "web", "cpuset.cpus"), "0");

    // What the next manager finds is held to what is recorded, whatever it is held to.
    let mount = lodge_host::cgroup::mount_point().unwrap();
    let path = mount.join("lodge").join(host.vm("web").id.to_string());
    fs::write(path.join("cpu.weight"), "1").unwrap();
    host.restart().await;
    assert_eq!(of_group(&host, "web", "cpu.weight"), "200");

    let lifted = json!({"cpu": {"shares": null, "limit": null, "affinity": null}});
    let merged = host.manager.vm_merge(&caller, "web", lifted, IfMatch::Any);
    assert!(!merged.await.unwrap().status.restart_pending);
    assert_eq!(of_group(&host, "web", "cpu.weight"), "100");
    assert_eq!(of_group(&host, "web", "cpu.max"), "max 100000");
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    assert_eq!(of_group(&host, "web", "cpuset.cpus"), possible.trim());
    host.done("web", VmAction::Stop).await;
    host.manager.close().await;
}

pub async fn disks_are_limited_while_a_guest_runs() {
    let caller = admin();
    let mut host = host_with("web", programs::obedient()).await;
    for name in ["data", "more", "last"] {
        let create = json!({"name": name, "size": "1MiB"});
        let create: DiskCreate = serde_json::from_value(create).unwrap();
        let operation = host.manager.disk_create(&caller, create).await.unwrap();
        wait(&host.manager, &operation).await;
    }
    let disks = |iops: u32| {
        json!({"disks": [
            {"disk": "data", "limits": {"iops": iops, "bandwidth": "1MiB"}},
            {"disk": "more", "bus": "nvme", "limits": {"iops": iops}},
            {"disk": "last", "bus": "sata"},
        ]})
    };
    let merge = async |host: &Host, patch| {
        let merged = host
            .manager
            .vm_merge(&caller, "web", patch, IfMatch::Any)
            .await;
        merged.map(|vm| vm.status.restart_pending)
    };
    assert_eq!(merge(&host, disks(100)).await, Ok(false));
    host.done("web", VmAction::Start).await;
    // Each kind of disk is told at once.
    assert_eq!(merge(&host, disks(200)).await, Ok(false));
    let problem = merge(&host, disks(1)).await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/disks/0/limits/iops"));
    let limits = host.vm("web").spec.disks[0].limits;
    assert_eq!(limits.iops, Some(200));
    host.restart().await;
    assert!(!host.vm("web").status.restart_pending);
    let mut lifted = disks(300);
    lifted["disks"][0]["limits"] = json!({});
    lifted["disks"][2]["limits"] = json!({"iops": 10});
    assert_eq!(merge(&host, lifted).await, Ok(false));
    // Other changes of an entry wait, and its limits do not.
    let mut both = disks(400);
    both["disks"][0]["read_only"] = json!(true);
    assert_eq!(merge(&host, both).await, Ok(true));
    assert_eq!(merge(&host, disks(400)).await, Ok(false));
    host.done("web", VmAction::Stop).await;
    host.manager.close().await;
}
