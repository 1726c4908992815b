//! A configuration that is brought to a host whose guests run.

use lodge_api::configuration::{Configuration, ConfigurationRestore, ConfigurationRestored};
use lodge_api::operation::OperationStatus;
use lodge_api::vm::{VmAction, VmState};
use lodge_api::{ErrorCode, Problem};
use lodge_manager::IfMatch;
use serde_json::json;

use crate::common::host_with;
use crate::programs;
use crate::support::{Host, admin};

/// Brings a configuration here, with other links in the place of some, or says why it cannot be.
pub async fn restore(
    host: &Host,
    configuration: &Configuration,
    macs: &[(&str, &str)],
) -> Result<ConfigurationRestored, Problem> {
    let mac = |(old, new): &(&str, &str)| ((*old).to_owned(), (*new).to_owned());
    let restore = ConfigurationRestore {
        configuration: configuration.clone(),
        macs: macs.iter().map(mac).collect(),
        preview: false,
    };
    let certificates = |_: &str| Err("no certificates here".to_owned());
    host.manager
        .configuration_restore(&admin(), restore, certificates)
        .await
}

pub async fn a_guest_runs_on_when_its_configuration_comes_back() {
    let host = host_with("web", programs::obedient()).await;
    let manager = &host.manager;
    let create = serde_json::from_value(json!({"name": "data", "size": "1MiB"})).unwrap();
    let operation = manager.disk_create(&admin(), create).await.unwrap();
    crate::support::wait(manager, &operation).await;
    let disks = |iops: u32| json!({"disks": [{"disk": "data", "limits": {"iops": iops}}]});
    let merge = async |patch| {
        let merged = manager.vm_merge(&admin(), "web", patch, IfMatch::Any).await;
        merged.unwrap().status.restart_pending
    };
    merge(disks(100)).await;
    host.done("web", VmAction::Start).await;
    let before = manager.configuration_view(&admin()).unwrap();
    let pid = host.vm("web").status.pid;
    assert!(merge(json!({"vcpus": 2})).await);
    assert!(merge(disks(200)).await);
    // Limits hold at once, as after any change; and what it runs with is what is wanted again.
    restore(&host, &before, &[]).await.unwrap();
    let vm = host.vm("web");
    assert!(!vm.status.restart_pending);
    assert_eq!((vm.status.state, vm.status.pid), (VmState::Running, pid));
    assert_eq!(
        (vm.spec.vcpus, vm.spec.disks[0].limits.iops),
        (1, Some(100))
    );

    // Deleted, it comes back stopped, and says at its start what it lacks.
    host.done("web", VmAction::Stop).await;
    manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    manager
        .disk_delete(&admin(), "data", IfMatch::Any)
        .await
        .unwrap();
    let restored = restore(&host, &before, &[]).await.unwrap();
    assert!(restored.warnings[0].contains("the disk \"data\""));
    assert_eq!(
        (host.state("web"), host.vm("web").id),
        (VmState::Stopped, vm.id)
    );
    let operation = host.act("web", VmAction::Start).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    let problem = operation.error.unwrap();
    assert_eq!(problem.code, ErrorCode::InvalidRequest);
    assert_eq!(problem.detail, "there is no disk \"data\"");
    assert_eq!(problem.pointer.as_deref(), Some("/disks/0/disk"));
    merge(json!({"disks": []})).await;
    host.done("web", VmAction::Start).await;
    host.done("web", VmAction::Stop).await;
    host.manager.close().await;
}
