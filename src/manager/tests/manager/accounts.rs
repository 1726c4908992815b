//! Users, sessions and tokens.

use std::net::{IpAddr, Ipv4Addr};

use crate::support::{Host, admin, name};
use lodge_api::ErrorCode;
use lodge_api::auth::{LoginRequest, Session, TokenCreate, UserCreate, UserPatch};
use lodge_api::page::ListParams;
use lodge_api::privilege::Role;
use lodge_manager::{Caller, IfMatch, Manager};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

async fn login(manager: &Manager, user: &str, password: &str) -> Result<Session, ErrorCode> {
    login_from(manager, user, password, HERE).await
}

async fn login_from(
    manager: &Manager,
    user: &str,
    password: &str,
    peer: IpAddr,
) -> Result<Session, ErrorCode> {
    let request = LoginRequest {
        user: user.to_owned(),
        password: password.to_owned(),
    };
    manager
        .login(request, peer)
        .await
        .map_err(|problem| problem.code)
}

async fn make_user(manager: &Manager, user: &str, role: Role) {
    let create = UserCreate {
        name: name(user),
        password: format!("{user}-password"),
        role,
    };
    manager.user_create(&admin(), create).await.unwrap();
}

fn caller(user: &str, role: Role) -> Caller {
    Caller {
        user: name(user),
        role,
        address: "192.0.2.9".to_owned(),
    }
}

fn password(text: &str) -> UserPatch {
    UserPatch {
        password: Some(text.to_owned()),
        ..UserPatch::default()
    }
}

#[tokio::test]
async fn the_first_password_is_shown_until_it_is_changed() {
    let mut host = Host::new().await;
    let first = host.manager.initial_password().expect("made up");
    let session = login(&host.manager, "admin", &first).await.unwrap();
    assert_eq!(session.role, Role::Administrator);
    host.restart().await;
    assert_eq!(host.manager.initial_password().as_ref(), Some(&first));
    let identity = host
        .manager
        .authenticate(&session.token)
        .expect("survives a restart");
    let caller = identity.caller("192.0.2.1");
    let change = password("a better one");
    host.manager
        .user_patch(&caller, "admin", change, IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(host.manager.initial_password(), None);
    assert!(
        host.manager.authenticate(&session.token).is_none(),
        "a change ends sessions"
    );
    assert_eq!(
        login(&host.manager, "admin", &first).await.err(),
        Some(ErrorCode::Unauthorized)
    );
    login(&host.manager, "admin", "a better one").await.unwrap();
    host.restart().await;
    assert_eq!(host.manager.initial_password(), None);
    host.manager.close().await;
}

#[tokio::test]
async fn a_password_nobody_has_seen_is_replaced_after_a_reboot() {
    let mut host = Host::new().await;
    let first = host.manager.initial_password().unwrap();
    host.manager.close().await;
    // The run directory does not survive a reboot.
    std::fs::remove_dir_all(&host.config.run_dir).unwrap();
    host.manager = crate::support::open(&host.config).await;
    let second = host.manager.initial_password().expect("another");
    assert_ne!(first, second);
    login(&host.manager, "admin", &second).await.unwrap();
    host.manager.close().await;
    std::fs::remove_dir_all(&host.config.run_dir).unwrap();
    host.manager = crate::support::open(&host.config).await;
    assert_eq!(host.manager.initial_password(), None);
    login(&host.manager, "admin", &second)
        .await
        .expect("somebody knows it");
    host.manager.close().await;
}

#[tokio::test]
async fn wrong_passwords_are_refused_alike_and_slowed_down() {
    let host = Host::new().await;
    let right = host.manager.initial_password().unwrap();
    assert_eq!(
        login(&host.manager, "nobody", &right).await.err(),
        Some(ErrorCode::Unauthorized)
    );
    for _ in 0..3 {
        assert_eq!(
            login(&host.manager, "admin", "wrong").await.err(),
            Some(ErrorCode::Unauthorized)
        );
    }
    assert_eq!(
        login(&host.manager, "admin", &right).await.err(),
        Some(ErrorCode::TooManyRequests)
    );
    login_from(&host.manager, "admin", &right, THERE)
        .await
        .expect("not locked out elsewhere");
    let long = "x".repeat(100_000);
    assert_eq!(
        login_from(&host.manager, "admin", &long, THERE).await.err(),
        Some(ErrorCode::Unauthorized)
    );
    assert_eq!(host.manager.metrics().logins_refused, 6);
    host.manager.close().await;
}

#[tokio::test]
async fn sessions_end_by_logging_out_and_with_their_user() {
    let host = Host::new().await;
    make_user(&host.manager, "ann", Role::Operator).await;
    let open = || login(&host.manager, "ann", "ann-password");
    let (first, second) = (open().await.unwrap(), open().await.unwrap());
    let identity = host.manager.authenticate(&first.token).unwrap();
    assert_eq!(
        (identity.user.as_str(), identity.role),
        ("ann", Role::Operator)
    );
    host.manager.logout(&identity).await.unwrap();
    assert!(host.manager.authenticate(&first.token).is_none());
    assert!(host.manager.authenticate(&second.token).is_some());
    let disable = UserPatch {
        disabled: Some(true),
        ..UserPatch::default()
    };
    host.manager
        .user_patch(&admin(), "ann", disable, IfMatch::Any)
        .await
        .unwrap();
    assert!(host.manager.authenticate(&second.token).is_none());
    assert_eq!(open().await.err(), Some(ErrorCode::Unauthorized));
    for nonsense in ["", "ls_", &"x".repeat(10_000)] {
        assert!(host.manager.authenticate(nonsense).is_none());
    }
    let local = host.manager.local_token().to_owned();
    assert_eq!(
        host.manager.authenticate(&local).unwrap().role,
        Role::Viewer
    );
    host.manager.close().await;
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let host = Host::new().await;
    let manager = &host.manager;
    for patch in [
        UserPatch {
            disabled: Some(true),
            ..UserPatch::default()
        },
        UserPatch {
            role: Some(Role::Viewer),
            ..UserPatch::default()
        },
    ] {
        let problem = manager
            .user_patch(&admin(), "admin", patch, IfMatch::Any)
            .await
            .unwrap_err();
        assert_eq!(problem.code, ErrorCode::WrongState);
    }
    let problem = manager
        .user_delete(&admin(), "admin", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    make_user(manager, "ann", Role::Administrator).await;
    manager
        .user_delete(&admin(), "admin", IfMatch::Any)
        .await
        .unwrap();
    let problem = manager
        .user_delete(&admin(), "ann", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    assert_eq!(
        manager
            .user_list(&ListParams::default())
            .unwrap()
            .items
            .len(),
        1
    );
    manager.close().await;
}

#[tokio::test]
async fn others_change_nothing_but_their_own_password() {
    let host = Host::new().await;
    let manager = &host.manager;
    make_user(manager, "ann", Role::Operator).await;
    let ann = caller("ann", Role::Operator);
    let promote = UserPatch {
        role: Some(Role::Administrator),
        ..UserPatch::default()
    };
    for (user, patch) in [
        ("ann", promote),
        ("admin", password("taken over")),
        ("none", password("whatever")),
    ] {
        let problem = manager
            .user_patch(&ann, user, patch, IfMatch::Any)
            .await
            .unwrap_err();
        assert_eq!(problem.code, ErrorCode::Forbidden);
    }
    manager
        .user_patch(&ann, "ann", password("my own one"), IfMatch::Any)
        .await
        .unwrap();
    login(manager, "ann", "my own one").await.unwrap();
    let problem = manager
        .user_patch(&ann, "ann", password("short"), IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/password"));
    manager.close().await;
}

#[tokio::test]
async fn tokens_carry_the_weaker_role_and_end() {
    let mut host = Host::new().await;
    make_user(&host.manager, "ann", Role::Operator).await;
    let ann = caller("ann", Role::Operator);
    let create = |token: &str, role| TokenCreate {
        name: name(token),
        role,
        expires_in_days: None,
    };
    let problem = host
        .manager
        .token_create(&ann, create("t", Some(Role::Administrator)))
        .await;
    assert_eq!(problem.err().unwrap().code, ErrorCode::Forbidden);
    let viewer = host
        .manager
        .token_create(&ann, create("view", Some(Role::Viewer)))
        .await
        .unwrap();
    let full = host
        .manager
        .token_create(&ann, create("full", None))
        .await
        .unwrap();
    let clash = host.manager.token_create(&ann, create("full", None)).await;
    assert_eq!(clash.err().unwrap().code, ErrorCode::AlreadyExists);
    host.restart().await;
    let manager = &host.manager;
    assert_eq!(
        manager.authenticate(&viewer.secret).unwrap().role,
        Role::Viewer
    );
    assert_eq!(
        manager.authenticate(&full.secret).unwrap().role,
        Role::Operator
    );
    let demote = UserPatch {
        role: Some(Role::Viewer),
        ..UserPatch::default()
    };
    manager
        .user_patch(&admin(), "ann", demote, IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(
        manager.authenticate(&full.secret).unwrap().role,
        Role::Viewer
    );
    make_user(manager, "bob", Role::Operator).await;
    let bob = caller("bob", Role::Operator);
    let id = full.token.id.to_string();
    assert_eq!(
        manager.token_delete(&bob, &id).await.unwrap_err().code,
        ErrorCode::NotFound
    );
    assert_eq!(
        manager.token_delete(&bob, "full").await.unwrap_err().code,
        ErrorCode::NotFound
    );
    manager.token_delete(&ann, "full").await.unwrap();
    assert!(manager.authenticate(&full.secret).is_none());
    assert_eq!(
        manager
            .token_list(&bob, &ListParams::default())
            .unwrap()
            .items,
        []
    );
    assert_eq!(
        manager
            .token_list(&admin(), &ListParams::default())
            .unwrap()
            .items
            .len(),
        1
    );
    manager
        .user_delete(&admin(), "ann", IfMatch::Any)
        .await
        .unwrap();
    assert!(manager.authenticate(&viewer.secret).is_none());
    manager.close().await;
}
