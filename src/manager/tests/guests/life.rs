//! Starting, stopping, pausing, consoles, and ends nobody asked for.

use lodge_api::ErrorCode;
use lodge_api::event::EventBody;
use lodge_api::image::ImageKind;
use lodge_api::operation::OperationStatus;
use lodge_api::vm::{ConsoleParams, OnCrash, VmAction, VmState, VmStopOptions, Watchdog};
use lodge_manager::IfMatch;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{attach, host_with, kill, reads, stop};
use crate::support::{act, admin, event, state_event, within};
use crate::{code, programs};

pub async fn a_guest_runs_and_obeys_its_power_button() {
    let host = host_with("web", programs::obedient()).await;
    let mut events = host.listen();
    host.done("web", VmAction::Start).await;
    state_event(&mut events, "web", VmState::Starting).await;
    state_event(&mut events, "web", VmState::Running).await;
    reads(&host, "web", "r").await;
    let status = host.vm("web").status;
    assert_eq!(status.state, VmState::Running);
    assert!(
        status.pid.is_some() && status.memory_used.bytes() > 0,
        "{status:?}"
    );
    let again = host
        .manager
        .vm_action(&admin(), "web", VmAction::Start, VmStopOptions::default())
        .await;
    assert_eq!(again.unwrap_err().code, ErrorCode::WrongState);
    host.done("web", VmAction::Stop).await;
    let reason = state_event(&mut events, "web", VmState::Stopped).await;
    assert_eq!(reason, None, "somebody asked for it");
    let status = host.vm("web").status;
    assert_eq!((status.state, status.pid), (VmState::Stopped, None));
    let left = std::fs::read_dir(host.config.run_dir.join("vms")).unwrap();
    assert_eq!(left.count(), 0);
    host.done("web", VmAction::Start).await;
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

pub async fn a_guest_that_does_not_power_off_is_reported_or_killed() {
    let host = host_with("web", programs::idle()).await;
    host.done("web", VmAction::Start).await;
    let operation = act(&host.manager, "web", VmAction::Stop, stop(1, false)).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    let problem = operation.error.unwrap();
    assert!(problem.detail.contains("did not power off"), "{problem}");
    assert_eq!(host.state("web"), VmState::Running);
    let operation = act(&host.manager, "web", VmAction::Stop, stop(1, true)).await;
    assert_eq!(
        operation.status,
        OperationStatus::Succeeded,
        "{operation:?}"
    );
    assert_eq!(host.state("web"), VmState::Stopped);
    host.manager.close().await;
}

pub async fn waiting_for_a_stop_can_be_cancelled() {
    let host = host_with("web", programs::idle()).await;
    host.done("web", VmAction::Start).await;
    let mut events = host.listen();
    let operation = host
        .manager
        .vm_action(&admin(), "web", VmAction::Stop, stop(3600, false))
        .await
        .unwrap();
    state_event(&mut events, "web", VmState::Stopping).await;
    let operation = host
        .manager
        .operation_cancel(&admin(), operation.id)
        .await
        .unwrap();
    assert_eq!(operation.status, OperationStatus::Cancelled);
    state_event(&mut events, "web", VmState::Running).await;
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

pub async fn a_guest_is_paused_resumed_and_reset() {
    let host = host_with("web", programs::obedient()).await;
    host.done("web", VmAction::Start).await;
    reads(&host, "web", "r").await;
    host.done("web", VmAction::Pause).await;
    assert_eq!(host.state("web"), VmState::Paused);
    let stopping = host
        .manager
        .vm_action(&admin(), "web", VmAction::Stop, VmStopOptions::default())
        .await;
    assert!(stopping.unwrap_err().hint.unwrap().contains("resume"));
    host.done("web", VmAction::Resume).await;
    let mut events = host.listen();
    host.done("web", VmAction::Reset).await;
    event(&mut events, |body| {
        matches!(body, EventBody::VmReset { .. })
    })
    .await;
    reads(&host, "web", "rr").await;
    assert_eq!(host.vm("web").status.resets, 1);
    host.done("web", VmAction::Stop).await;
    host.manager.close().await;
}

/// A system that is only starting does not feel its power button.
pub async fn a_guest_is_asked_again_to_power_off() {
    let host = host_with("web", programs::gets_ready()).await;
    host.done("web", VmAction::Start).await;
    reads(&host, "web", "r").await;
    host.done("web", VmAction::Stop).await;
    assert_eq!(host.state("web"), VmState::Stopped);
    host.manager.close().await;
}

pub async fn the_console_goes_both_ways() {
    let host = host_with("web", programs::adds_one()).await;
    host.done("web", VmAction::Start).await;
    let mut console = attach(&host, "web").await;
    console.write_all(b"a").await.unwrap();
    assert_eq!(within(console.read_u8()).await.unwrap(), b'b');
    let params = ConsoleParams {
        scrollback: Some(1 << 30),
        port: None,
    };
    let problem = host
        .manager
        .vm_console(&admin(), "web", params)
        .await
        .unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("?scrollback"));
    host.done("web", VmAction::Kill).await;
    let mut rest = Vec::new();
    within(console.read_to_end(&mut rest)).await.unwrap();
    host.manager.close().await;
}

pub async fn ends_nobody_asked_for_have_a_reason() {
    let host = host_with("off", programs::powers_off()).await;
    let mut events = host.listen();
    host.act("off", VmAction::Start).await;
    let reason = state_event(&mut events, "off", VmState::Stopped)
        .await
        .unwrap();
    assert!(reason.contains("powered itself off"), "{reason}");
    host.upload(
        "faulty",
        ImageKind::Kernel,
        &code::kernel(programs::triple_faults()),
    )
    .await;
    let patch = json!({"name": "faulty", "boot": {"kernel": "faulty"}});
    host.manager
        .vm_merge(&admin(), "off", patch, IfMatch::Any)
        .await
        .unwrap();
    host.act("faulty", VmAction::Start).await;
    let reason = state_event(&mut events, "faulty", VmState::Crashed)
        .await
        .unwrap();
    assert!(reason.contains("triple-faulted"), "{reason}");
    let mut host = host;
    host.restart().await;
    let status = host.vm("faulty").status;
    assert_eq!(
        (status.state, status.reason),
        (VmState::Crashed, Some(reason))
    );
    host.manager.close().await;
}

pub async fn a_killed_monitor_is_a_crash_and_the_guest_is_restarted() {
    let host = host_with("web", programs::obedient()).await;
    let patch = json!({"on_crash": OnCrash::Restart});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    host.done("web", VmAction::Start).await;
    let first = host.vm("web").status.pid.unwrap();
    let mut events = host.listen();
    kill(first);
    let reason = state_event(&mut events, "web", VmState::Crashed)
        .await
        .unwrap();
    assert!(reason.contains("crashed or was killed"), "{reason}");
    state_event(&mut events, "web", VmState::Running).await;
    assert_ne!(host.vm("web").status.pid, Some(first));
    host.done("web", VmAction::Stop).await;
    host.manager.close().await;
}

pub async fn a_device_that_breaks_is_an_event() {
    let host = host_with("web", code::breaks_its_device()).await;
    host.done("web", VmAction::Start).await;
    let mut events = host.listen();
    let mut console = attach(&host, "web").await;
    console.write_all(b"x").await.unwrap();
    let found = event(&mut events, |body| matches!(body, EventBody::System { .. })).await;
    let EventBody::System { message } = found.body else {
        unreachable!()
    };
    assert!(
        message.starts_with("guest web: rng: needs a reset"),
        "{message}"
    );
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

pub async fn a_system_that_crashes_is_an_event_and_its_guest_stays() {
    let host = host_with("web", programs::panics()).await;
    host.done("web", VmAction::Start).await;
    assert_eq!(host.vm("web").status.panicked_at, None);
    let mut events = host.listen();
    let mut console = attach(&host, "web").await;
    console.write_all(b"x").await.unwrap();
    event(&mut events, |body| {
        matches!(body, EventBody::VmPanicked { vm, crash_kernel: false } if vm.as_str() == "web")
    })
    .await;
    let status = host.vm("web").status;
    assert_eq!(status.state, VmState::Running);
    assert!(status.panicked_at.is_some());
    host.done("web", VmAction::Reset).await;
    event(&mut events, |body| {
        matches!(body, EventBody::VmReset { .. })
    })
    .await;
    assert_eq!(host.vm("web").status.panicked_at, None);
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

pub async fn a_guest_that_neglects_its_watchdog_is_caught() {
    let host = host_with("web", code::neglects_its_watchdog()).await;
    for (word, action, state) in [
        ("pause", Watchdog::Pause, VmState::Paused),
        ("power_off", Watchdog::PowerOff, VmState::Crashed),
    ] {
        let patch = json!({"watchdog": word});
        host.manager
            .vm_merge(&admin(), "web", patch, IfMatch::Any)
            .await
            .unwrap();
        host.done("web", VmAction::Start).await;
        assert_eq!(host.vm("web").status.watchdog_expired_at, None);
        let mut events = host.listen();
        let mut console = attach(&host, "web").await;
        console.write_all(b"x").await.unwrap();
        let expired = |body: &EventBody| {
            matches!(body, EventBody::VmWatchdog { vm, action: found }
                if vm.as_str() == "web" && *found == action)
        };
        event(&mut events, expired).await;
        state_event(&mut events, "web", state).await;
        assert!(host.vm("web").status.watchdog_expired_at.is_some());
        if state == VmState::Paused {
            host.done("web", VmAction::Kill).await;
        }
    }
    let reason = host.vm("web").status.reason.unwrap();
    assert!(reason.contains("watchdog"), "{reason}");
    host.manager.close().await;
}
