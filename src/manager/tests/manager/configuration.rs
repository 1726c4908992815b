//! The configuration as a whole: taken from one host, and brought to another.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::support::{Host, admin, appliance, bzimage, name, open, spec, wait};
use lodge_api::auth::{LoginRequest, TokenCreate, UserCreate, UserPatch};
use lodge_api::configuration::{
    Configuration, ConfigurationKind, ConfigurationRestore, ConfigurationRestored, FieldChange,
    RestoreOutcome, RestoredObject,
};
use lodge_api::image::ImageKind;
use lodge_api::page::ListParams;
use lodge_api::privilege::Role;
use lodge_api::snapshot::SnapshotCreate;
use lodge_api::{ErrorCode, Problem};
use lodge_manager::{Caller, Certificate, IfMatch, Manager};
use serde_json::json;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Takes every text for a certificate.
pub fn any_certificate(pem: &str) -> Result<String, String> {
    match pem {
        "broken" => Err("this is no certificate".to_owned()),
        pem => Ok(format!("fingerprint of {pem}")),
    }
}

pub async fn restore(
    manager: &Manager,
    configuration: &Configuration,
    preview: bool,
) -> Result<ConfigurationRestored, Problem> {
    let restore = ConfigurationRestore {
        configuration: configuration.clone(),
        macs: BTreeMap::new(),
        preview,
    };
    manager
        .configuration_restore(&admin(), restore, any_certificate)
        .await
}

pub fn taken(manager: &Manager) -> Configuration {
    manager.configuration_view(&admin()).unwrap()
}

fn object(restored: &ConfigurationRestored, kind: ConfigurationKind, name: &str) -> RestoredObject {
    let mut objects = restored.objects.iter();
    let found = objects.find(|object| object.kind == kind && object.name == name);
    found
        .unwrap_or_else(|| panic!("{name}: {restored:?}"))
        .clone()
}

fn outcome(
    restored: &ConfigurationRestored,
    kind: ConfigurationKind,
    name: &str,
) -> RestoreOutcome {
    object(restored, kind, name).outcome
}

fn all_are(restored: &ConfigurationRestored, outcome: RestoreOutcome) -> bool {
    let mut objects = restored.objects.iter();
    objects.all(|object| object.outcome == outcome)
}

async fn may_log_in(manager: &Manager, user: &str, password: &str) -> bool {
    let request = LoginRequest {
        user: user.to_owned(),
        password: password.to_owned(),
    };
    manager.login(request, HERE).await.is_ok()
}

/// A host with one of each; answers the secret of its token.
pub async fn furnished() -> (Host, String) {
    let host = Host::new().await;
    let manager = &host.manager;
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    let create = serde_json::from_value(json!({"name": "data", "size": "1MiB"})).unwrap();
    let operation = manager.disk_create(&admin(), create).await.unwrap();
    wait(manager, &operation).await;
    let mut wanted = spec("web");
    wanted.disks = serde_json::from_value(json!([{"disk": "data"}])).unwrap();
    wanted.nics = serde_json::from_value(json!([{}])).unwrap();
    manager.vm_create(&admin(), wanted).await.unwrap();
    let anna = UserCreate {
        name: name("anna"),
        password: "anna-password".to_owned(),
        role: Role::Operator,
    };
    manager.user_create(&admin(), anna).await.unwrap();
    let caller = Caller {
        user: name("anna"),
        role: Role::Operator,
        address: "192.0.2.1".to_owned(),
    };
    let create = TokenCreate {
        name: name("ci"),
        role: None,
        expires_in_days: Some(7),
    };
    let token = manager.token_create(&caller, create).await.unwrap();
    let certificate = Certificate {
        pem: "pem".to_owned(),
        fingerprint: "fingerprint of pem".to_owned(),
    };
    let administrator = admin();
    let authority = manager.authority_create(&administrator, name("lab"), certificate);
    authority.await.unwrap();
    let keys = ["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned()];
    let patch = serde_json::from_value(json!({"update_keys": keys})).unwrap();
    manager.system_patch(&admin(), patch).await.unwrap();
    (host, token.secret)
}

#[tokio::test]
async fn another_host_becomes_what_the_first_was() {
    let (first, secret) = furnished().await;
    let configuration = taken(&first.manager);
    let web = first.vm("web");
    first.manager.close().await;

    let mut second = Host::new().await;
    let before = taken(&second.manager);
    let own = second.manager.initial_password().unwrap();
    let preview = restore(&second.manager, &configuration, true)
        .await
        .unwrap();
    assert!(preview.preview);
    assert_eq!(taken(&second.manager).records, before.records);
    let restored = restore(&second.manager, &configuration, false)
        .await
        .unwrap();
    assert_eq!((restored.objects.len(), restored.preview), (7, false));
    assert_eq!(restored.objects, preview.objects);
    for (kind, name) in [
        (ConfigurationKind::User, "anna"),
        (ConfigurationKind::Token, "anna/ci"),
        (ConfigurationKind::Authority, "lab"),
        (ConfigurationKind::UpdateKeys, "update-keys"),
        (ConfigurationKind::Vm, "web"),
    ] {
        assert_eq!(outcome(&restored, kind, name), RestoreOutcome::Added);
    }
    // Nobody has used the random password there, so nobody knows it.
    let admin_user = outcome(&restored, ConfigurationKind::User, "admin");
    assert_eq!(admin_user, RestoreOutcome::Unchanged);

    let manager = &second.manager;
    assert!(may_log_in(manager, "admin", &own).await);
    assert!(may_log_in(manager, "anna", "anna-password").await);
    let identity = manager.authenticate(&secret).expect("the token holds");
    assert_eq!(identity.user, name("anna"));
    let vm = second.vm("web");
    assert_eq!((vm.id, &vm.spec), (web.id, &web.spec));
    assert_eq!(vm.created_at, web.created_at);
    let warnings = restored.warnings.join("\n");
    for absent in ["the disk \"data\"", "the image \"kernel\""] {
        assert!(warnings.contains(absent), "{warnings}");
    }

    let again = restore(manager, &configuration, false).await.unwrap();
    assert!(all_are(&again, RestoreOutcome::Unchanged), "{again:?}");
    second.restart().await;
    assert_eq!(second.vm("web").spec, web.spec);
    assert!(second.manager.authenticate(&secret).is_some());
    second.manager.close().await;
}

#[tokio::test]
async fn a_guest_without_its_disk_says_so() {
    let (first, _) = furnished().await;
    let configuration = taken(&first.manager);
    first.manager.close().await;
    let host = Host::new().await;
    let manager = &host.manager;
    restore(manager, &configuration, false).await.unwrap();
    assert_eq!(
        manager.vm_list(&ListParams::default()).unwrap().items.len(),
        1
    );

    let create = SnapshotCreate {
        name: name("before"),
        description: String::new(),
        memory: None,
    };
    let problem = manager.vm_snapshot(&admin(), "web", create).await;
    let problem = problem.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/disks/0/disk"));
    assert_eq!(problem.detail, "there is no disk \"data\"");
    let patch = json!({"vcpus": 2});
    let problem = manager.vm_merge(&admin(), "web", patch, IfMatch::Any).await;
    assert_eq!(
        problem.unwrap_err().pointer.as_deref(),
        Some("/boot/kernel")
    );

    // With them it is as any other.
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    let create = serde_json::from_value(json!({"name": "data", "size": "1MiB"})).unwrap();
    let operation = manager.disk_create(&admin(), create).await.unwrap();
    wait(manager, &operation).await;
    assert_eq!(
        manager.disk_view("data").await.unwrap().used_by,
        [name("web")]
    );
    let patch = json!({"vcpus": 2});
    let changed = manager.vm_merge(&admin(), "web", patch, IfMatch::Any).await;
    assert_eq!(changed.unwrap().spec.vcpus, 2);
    let none_is_absent = restore(manager, &configuration, true).await.unwrap();
    let warnings = none_is_absent.warnings.join("\n");
    assert!(!warnings.contains("not on this host"), "{warnings}");
    manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    manager.close().await;
}

#[tokio::test]
async fn what_was_changed_is_as_it_was_and_what_is_new_stays() {
    let (host, _) = furnished().await;
    let manager = &host.manager;
    let configuration = taken(manager);
    let id = host.vm("web").id;
    let patch = json!({"vcpus": 3, "cloud_init": {"user_data": "#cloud-config\npassword: x\n"}});
    let changed = manager.vm_merge(&admin(), "web", patch, IfMatch::Any).await;
    changed.unwrap();
    manager.vm_create(&admin(), spec("new")).await.unwrap();
    let patch = UserPatch {
        password: Some("another-password".to_owned()),
        role: Some(Role::Viewer),
        ..UserPatch::default()
    };
    let caller = admin();
    let changed = manager.user_patch(&caller, "anna", patch, IfMatch::Any);
    changed.await.unwrap();
    let login = LoginRequest {
        user: "anna".to_owned(),
        password: "another-password".to_owned(),
    };
    let session = manager.login(login, HERE).await.unwrap();

    let restored = restore(manager, &configuration, false).await.unwrap();
    let web = object(&restored, ConfigurationKind::Vm, "web");
    let change = |pointer: &str, old, new| FieldChange {
        pointer: pointer.to_owned(),
        old,
        new,
        secret: false,
    };
    let hidden = json!({"user_data": "(not shown)"});
    assert_eq!(
        web.changes,
        [
            change("/cloud_init", Some(hidden), None),
            change("/vcpus", Some(json!(3)), Some(json!(1))),
        ]
    );
    let anna = object(&restored, ConfigurationKind::User, "anna");
    assert_eq!(anna.outcome, RestoreOutcome::Replaced);
    let pointers: Vec<_> = anna.changes.iter().map(|change| &change.pointer).collect();
    assert_eq!(pointers, ["/password", "/role"]);
    assert_eq!(
        (anna.changes[0].secret, &anna.changes[0].new),
        (true, &None)
    );
    let new = outcome(&restored, ConfigurationKind::Vm, "new");
    assert_eq!(new, RestoreOutcome::Kept);

    assert_eq!((host.vm("web").id, host.vm("web").spec.vcpus), (id, 1));
    assert!(host.vm("web").spec.cloud_init.is_none());
    assert!(manager.vm_view("new").is_ok());
    assert!(manager.authenticate(&session.token).is_none());
    assert!(may_log_in(manager, "anna", "anna-password").await);
    manager.close().await;
}

#[tokio::test]
async fn an_object_that_finds_its_id_taken_gets_another() {
    let (host, secret) = furnished().await;
    let manager = &host.manager;
    let mut configuration = taken(manager);
    let id = host.vm("web").id;
    for record in &mut configuration.records {
        match record.table.as_str() {
            "vms" => {
                record.value["spec"]["name"] = json!("other");
                record.value["spec"]["nics"] = json!([{}]);
            }
            "tokens" => {
                record.value["name"] = json!("other");
                record.value["hash"] = json!("0".repeat(64));
            }
            _ => {}
        }
    }
    let restored = restore(manager, &configuration, false).await.unwrap();
    let other = outcome(&restored, ConfigurationKind::Vm, "other");
    assert_eq!(other, RestoreOutcome::Added);
    let kept = outcome(&restored, ConfigurationKind::Token, "anna/ci");
    assert_eq!(kept, RestoreOutcome::Kept);
    assert_eq!(host.vm("web").id, id);
    assert_ne!(host.vm("other").id, id);
    assert_ne!(
        host.vm("other").spec.nics[0].mac,
        host.vm("web").spec.nics[0].mac
    );
    assert!(manager.authenticate(&secret).is_some());
    manager.close().await;
}

#[tokio::test]
async fn an_appliance_takes_the_name() {
    let (first, _) = furnished().await;
    let mut configuration = taken(&first.manager);
    first.manager.close().await;
    let directory = tempfile::tempdir().unwrap();
    let manager = open(&appliance(directory.path())).await;
    let before = manager.hostname();
    configuration.hostname = "Gamma".to_owned();
    let preview = restore(&manager, &configuration, true).await.unwrap();
    let host = object(&preview, ConfigurationKind::Host, "gamma");
    assert_eq!(host.outcome, RestoreOutcome::Replaced);
    assert_eq!(host.changes[0].old, Some(json!(before)));
    configuration.hostname = "no name".to_owned();
    let problem = restore(&manager, &configuration, true).await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/configuration/hostname"));
    assert_eq!(manager.hostname(), before);
    manager.close().await;
}

#[tokio::test]
async fn one_of_two_at_a_time_does_it_and_both_succeed() {
    let (first, _) = furnished().await;
    let configuration = taken(&first.manager);
    first.manager.close().await;
    let host = Host::new().await;
    let manager = &host.manager;
    let (one, other) = tokio::join!(
        restore(manager, &configuration, false),
        restore(manager, &configuration, false)
    );
    let added = |restored: Result<ConfigurationRestored, Problem>| {
        outcome(&restored.unwrap(), ConfigurationKind::Vm, "web") == RestoreOutcome::Added
    };
    assert_ne!(added(one), added(other));
    manager.close().await;
    let problem = restore(manager, &configuration, false).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::ShuttingDown);
}
