//! How much of its memory a running guest is asked to keep.

use lodge_api::vm::{VmAction, VmBalloon, VmBalloonTarget};
use lodge_api::{Problem, Size};
use lodge_manager::IfMatch;
use serde_json::json;

use crate::common::host_with;
use crate::programs;
use crate::support::{Host, admin};

async fn keep(host: &Host, target: Size) -> Result<VmBalloon, Problem> {
    let target = VmBalloonTarget { target };
    let vm = host.manager.vm_balloon(&admin(), "web", target).await?;
    Ok(vm.status.balloon.unwrap())
}

pub async fn a_running_guest_is_asked_for_memory() {
    let mut host = host_with("web", programs::idle()).await;
    let patch = json!({"memory": "256MiB"});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(host.vm("web").status.balloon, None);
    host.done("web", VmAction::Start).await;
    let all = VmBalloon {
        target: Size::mib(256),
        actual: Size::mib(256),
    };
    let status = host.vm("web").status;
    assert_eq!(status.balloon, Some(all));
    assert_eq!(status.guest_memory, None, "it has no driver");
    let less = VmBalloon {
        target: Size::mib(96),
        ..all
    };
    assert_eq!(keep(&host, less.target).await.unwrap(), less);
    // What counts is the memory it runs with.
    let patch = json!({"memory": "512MiB"});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    for target in [Size::mib(63), Size::mib(257), Size(Size::mib(96).0 + 1)] {
        let problem = keep(&host, target).await.unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some("/target"), "{problem}");
    }
    assert_eq!(host.vm("web").status.balloon, Some(less));
    // The next manager finds it so; the next start does not.
    host.restart().await;
    assert_eq!(host.vm("web").status.balloon, Some(less));
    host.done("web", VmAction::Kill).await;
    assert_eq!(host.vm("web").status.balloon, None);
    host.done("web", VmAction::Start).await;
    let balloon = host.vm("web").status.balloon.unwrap();
    assert_eq!(balloon.target, Size::mib(512));
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}
