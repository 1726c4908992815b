//! Disks of other machines and for them, as far as that goes without a kernel that has any.

use lodge_api::nvme::{NvmeConnect, NvmeDiscover, NvmeExportCreate};
use lodge_api::operation::OperationStatus;
use lodge_api::page::ListParams;
use lodge_api::{ErrorCode, Problem};
use serde_json::{Value, json};

use crate::support::{Host, admin, wait, within};

const NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555";

/// A port where nobody listens.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn connect(host: &Host, body: Value) -> Result<Problem, Problem> {
    let connect: NvmeConnect = serde_json::from_value(body).unwrap();
    let started = host.manager.connection_create(&admin(), connect).await?;
    let ended = within(wait(&host.manager, &started)).await;
    assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
    Ok(ended.error.unwrap())
}

#[tokio::test]
async fn what_cannot_be_a_connection_is_refused() {
    let host = Host::new().await;
    for (body, pointer) in [
        (json!({"address": "0.0.0.0", "nqn": NQN}), "/address"),
        (
            json!({"address": "10.0.0.5", "port": 0, "nqn": NQN}),
            "/port",
        ),
        (json!({"address": "10.0.0.5", "nqn": "disk"}), "/nqn"),
        (
            json!({"address": "10.0.0.5", "nqn": "nqn.2014-08.org.nvmexpress.discovery"}),
            "/nqn",
        ),
    ] {
        let problem = connect(&host, body).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidRequest);
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem:?}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_leaves_nothing_behind() {
    let host = Host::new().await;
    let body = json!({"address": "127.0.0.1", "port": free_port(), "nqn": NQN});
    let problem = connect(&host, body).await.unwrap();
    assert_eq!(problem.code, ErrorCode::TargetFailed);
    assert!(problem.detail.contains("cannot be reached"), "{problem:?}");
    let page = host.manager.connection_list(&ListParams::default());
    assert!(page.unwrap().items.is_empty());
    let query = NvmeDiscover {
        address: "127.0.0.1".parse().unwrap(),
        port: Some(free_port()),
    };
    let problem = host.manager.connection_discover(&query).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::TargetFailed);
    assert_eq!(problem.pointer.as_deref(), Some("?address"));
}

#[tokio::test]
async fn the_name_of_the_host_stays() {
    let mut host = Host::new().await;
    let name = host.manager.system().nvme_nqn;
    assert!(
        name.starts_with("nqn.2014-08.org.nvmexpress:uuid:"),
        "{name}"
    );
    host.restart().await;
    assert_eq!(host.manager.system().nvme_nqn, name);
    let other = Host::new().await;
    assert_ne!(other.manager.system().nvme_nqn, name);
}

#[tokio::test]
async fn what_cannot_be_exported_is_refused() {
    let host = Host::new().await;
    let refused = async |body: Value| {
        let create: NvmeExportCreate = serde_json::from_value(body).unwrap();
        let started = host.manager.nvme_export_create(&admin(), create).await;
        started.unwrap_err().pointer.unwrap()
    };
    let disk = "no such disk";
    let pointer = refused(json!({"disk": disk, "allowed_hosts": [NQN]})).await;
    assert_eq!(pointer, "/disk");
    let pointer = refused(json!({"disk": disk, "allowed_hosts": []})).await;
    assert_eq!(pointer, "/allowed_hosts");
    let pointer = refused(json!({"disk": disk, "allowed_hosts": [NQN, "x"]})).await;
    assert_eq!(pointer, "/allowed_hosts/1");
    let multicast = json!({"disk": disk, "allowed_hosts": "any", "address": "ff02::1"});
    assert_eq!(refused(multicast).await, "/address");
    let page = host.manager.nvme_export_list(&ListParams::default());
    assert!(page.unwrap().items.is_empty());
}
