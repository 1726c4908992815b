//! UEFI variables from outside.

use std::path::Path;

use lodge_api::nvram::VmVariableSet;
use lodge_api::snapshot::SnapshotCreate;
use lodge_api::vm::VmAction;
use lodge_api::{ErrorCode, Problem};
use lodge_manager::IfMatch;
use serde_json::json;

use crate::common::host_with;
use crate::programs;
use crate::support::{Host, admin, wait};

const TIMEOUT: &str = "Timeout-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const OWN: &str = "With blank-00000000-0000-0000-0000-000000000007";

async fn set(host: &Host, variable: &str, data: &str) -> Result<(), Problem> {
    let set = VmVariableSet {
        data: data.to_owned(),
        attributes: None,
    };
    let caller = admin();
    let set = host.manager.variable_set(&caller, "new", variable, set);
    set.await.map(drop)
}

async fn take_snapshot(host: &Host) {
    let kept: SnapshotCreate = serde_json::from_value(json!({"name": "kept"})).unwrap();
    let taken = host.manager.vm_snapshot(&admin(), "new", kept).await;
    let taken = wait(&host.manager, &taken.unwrap()).await;
    assert_eq!(taken.error, None);
}

async fn names(host: &Host) -> Vec<String> {
    let all = host.manager.variable_list("new").await.unwrap();
    all.items.into_iter().map(|found| found.name).collect()
}

async fn data(host: &Host, variable: &str) -> Result<String, ErrorCode> {
    let found = host.manager.variable_view("new", variable).await;
    found
        .map(|found| found.data)
        .map_err(|problem| problem.code)
}

pub async fn variables_of_a_guest_at_rest_are_read_and_changed() {
    if !Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd").exists() {
        println!("SKIPPED: this machine has no OVMF (package ovmf)");
        return;
    }
    // One that runs already: firmware comes with its next start.
    let mut host = host_with("new", programs::idle()).await;
    host.done("new", VmAction::Start).await;
    let patch = json!({"boot": {"kernel": null, "cmdline": null, "firmware": "uefi"}});
    host.manager
        .vm_merge(&admin(), "new", patch, IfMatch::Any)
        .await
        .unwrap();
    let running = [
        set(&host, TIMEOUT, "0000").await,
        host.manager.variable_delete(&admin(), "new", OWN).await,
        host.manager.variable_reset(&admin(), "new").await,
        host.manager.variable_list("new").await.map(drop),
        host.manager.variable_view("new", OWN).await.map(drop),
    ];
    for refused in running {
        assert_eq!(refused.unwrap_err().code, ErrorCode::WrongState);
    }
    host.done("new", VmAction::Kill).await;

    assert_eq!(names(&host).await, [""; 0]);
    set(&host, TIMEOUT, "0500").await.unwrap();
    set(&host, OWN, "00ff").await.unwrap();
    set(&host, TIMEOUT, "0a00").await.unwrap();
    let large = "5a".repeat(VmVariableSet::MOST);
    set(&host, OWN, &large).await.unwrap();
    // Acknowledged: there whatever happens.
    host.restart().await;
    assert_eq!(names(&host).await, ["Timeout", "With blank"]);
    assert_eq!(data(&host, TIMEOUT).await.unwrap(), "0a00");
    assert_eq!(data(&host, OWN).await, Ok(large.clone()));

    take_snapshot(&host).await;
    host.manager
        .variable_delete(&admin(), "new", OWN)
        .await
        .unwrap();
    // A snapshot keeps what there was.
    let kept = host.manager.snapshot_nvram("kept").await.unwrap().items;
    let kept = kept.iter().find(|one| one.info.name == "With blank");
    assert_eq!(kept.map(|one| &one.data), Some(&large));
    assert_eq!(data(&host, OWN).await, Err(ErrorCode::NotFound));
    let again = host.manager.variable_delete(&admin(), "new", OWN).await;
    assert_eq!(again.unwrap_err().code, ErrorCode::NotFound);
    // Whatever a guest has made of them.
    let id = host.vm("new").id;
    let file = host.config.data_dir.join("variables").join(id.to_string());
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0; usize::try_from(length).unwrap()]).unwrap();
    let problem = host.manager.variable_list("new").await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    assert!(problem.hint.unwrap().contains("DELETE"));
    host.manager.variable_reset(&admin(), "new").await.unwrap();
    assert_eq!(names(&host).await, [""; 0]);
    host.manager.close().await;
}

pub async fn a_guest_without_uefi_has_no_variables() {
    let host = host_with("new", programs::idle()).await;
    for refused in [
        set(&host, TIMEOUT, "0000").await,
        host.manager.variable_list("new").await.map(drop),
    ] {
        let problem = refused.unwrap_err();
        assert_eq!(problem.code, ErrorCode::WrongState);
        assert!(problem.detail.contains("UEFI"), "{problem}");
    }
    take_snapshot(&host).await;
    assert!(
        host.manager
            .snapshot_nvram("kept")
            .await
            .unwrap()
            .items
            .is_empty()
    );
    host.manager.close().await;
}
