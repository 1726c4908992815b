//! Renaming the host.

use crate::configuration::restore;
use crate::support::{Host, admin, appliance, open, within};
use lodge_api::ErrorCode;
use lodge_api::event::{Change, EventBody};
use lodge_api::system::SystemPatch;
use lodge_host::hostname;
use nix::sched::{CloneFlags, unshare};

fn named(name: &str) -> SystemPatch {
    SystemPatch {
        hostname: Some(name.to_owned()),
        update_keys: None,
    }
}

#[tokio::test]
async fn the_next_boot_has_the_name() {
    // Else this would rename the machine the test runs on.
    if unshare(CloneFlags::CLONE_NEWUTS).is_err() {
        eprintln!("SKIPPED: only root can have a host name of its own");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = appliance(directory.path());
    let manager = open(&config).await;
    let mut events = manager.events_since(&Default::default()).unwrap().1;
    let system = manager.system_patch(&admin(), named("Alpha")).await;
    assert_eq!(system.unwrap().hostname, "alpha");
    assert_eq!(hostname::stored(&config.data_dir).as_deref(), Some("alpha"));
    assert_eq!(lodge_host::system::hostname(), "alpha");
    let event = within(events.next()).await.unwrap();
    assert_eq!(
        event.body,
        EventBody::Object {
            target: "/v1/system".to_owned(),
            change: Change::Changed
        }
    );
    for wrong in ["", "a b", "192.0.2.1", "-a"] {
        let problem = manager.system_patch(&admin(), named(wrong)).await;
        assert_eq!(problem.unwrap_err().pointer.as_deref(), Some("/hostname"));
    }
    manager.close().await;
    // Another manager of the same boot does not go back to what init found.
    let manager = open(&config).await;
    assert_eq!(manager.hostname(), "alpha");
    // With the configuration of another host comes its name.
    let mut configuration = manager.configuration_view(&admin()).unwrap();
    configuration.hostname = "beta".to_owned();
    let restored = restore(&manager, &configuration, false).await.unwrap();
    assert_eq!(restored.warnings, Vec::<String>::new());
    assert_eq!(hostname::stored(&config.data_dir).as_deref(), Some("beta"));
    assert_eq!(lodge_host::system::hostname(), "beta");
    manager.close().await;
}

#[tokio::test]
async fn the_name_of_an_ordinary_machine_stays() {
    let host = Host::new().await;
    let before = host.manager.hostname();
    let problem = host.manager.system_patch(&admin(), named("alpha")).await;
    assert_eq!(problem.unwrap_err().code, ErrorCode::WrongState);
    assert_eq!(host.manager.hostname(), before);
    assert_eq!(hostname::stored(&host.config.data_dir), None);
    host.manager.close().await;
}
