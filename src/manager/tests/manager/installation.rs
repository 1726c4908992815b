//! Installing on a disk: what is refused. tests/tests/end_to_end/installation.rs does it.

use crate::support::{admin, appliance, config, open};
use lodge_api::ErrorCode;
use lodge_api::install::Install;

fn on(disk: &str) -> Install {
    Install {
        disk: disk.to_owned(),
        erase: true,
    }
}

#[tokio::test]
async fn an_ordinary_linux_host_is_installed_already() {
    let directory = tempfile::tempdir().unwrap();
    let manager = open(&config(directory.path())).await;
    let refused = manager.system_install(&admin(), on("any")).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::WrongState);
    manager.host_disks().await.unwrap();
    manager.close().await;
}

#[tokio::test]
async fn a_disk_that_is_not_there_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let config = appliance(directory.path());
    let manager = open(&config).await;
    let refused = manager.system_install(&admin(), on("no-such-disk")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.pointer.as_deref(), Some("/disk"), "{refused:?}");
    assert!(refused.to_string().contains("no-such-disk"), "{refused}");
    manager.close().await;
}
