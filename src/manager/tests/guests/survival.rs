//! Managers that are killed, and guests that do not notice.

use std::collections::HashMap;

use lodge_api::image::ImageKind;
use lodge_api::page::ListParams;
use lodge_api::vm::{VmAction, VmState};
use lodge_manager::IfMatch;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{attach, host_with, kill, reads};
use crate::manager_process::ManagerProcess;
use crate::support::{self, Host, admin, spec, state_event, within};
use crate::{code, programs};

pub async fn a_manager_killed_under_load_loses_no_acknowledged_change() {
    let mut host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &code::kernel(programs::idle()))
        .await;
    // Where guests can run, one does all the while.
    let pid = if std::fs::File::open("/dev/kvm").is_ok() {
        host.manager
            .vm_create(&admin(), spec("runs"))
            .await
            .unwrap();
        host.done("runs", VmAction::Start).await;
        host.vm("runs").status.pid
    } else {
        None
    };
    host.manager.close().await;
    let mut acknowledged: HashMap<String, String> = HashMap::new();
    let rounds = std::env::var("LODGE_TEST_KILLS").map_or(8, |count| count.parse().unwrap());
    for round in 1..=rounds {
        let mut process = ManagerProcess::start(&host, "churn");
        let mut count = 0;
        // What is still in the pipe after the kill is read to its end.
        while let Some(Ok(line)) = process.lines.next() {
            if let Some((change, name)) = line
                .strip_prefix("acknowledged ")
                .and_then(|rest| rest.split_once(' '))
            {
                acknowledged.insert(name.to_owned(), change.to_owned());
                count += 1;
            }
            if count == 13 * (1 + round % 8) {
                process.child.kill().unwrap();
            }
        }
        process.child.wait().unwrap();
        host.manager = support::open(&host.config).await;
        if pid.is_some() {
            assert_eq!(host.vm("runs").status.pid, pid);
        }
        for (name, change) in &acknowledged {
            let found = host.manager.vm_view(name);
            match change.as_str() {
                // A later change may have happened and not been acknowledged any more.
                "created" => drop(found.unwrap_or_else(|_| panic!("{name} is lost"))),
                "changed" if to_be_deleted(name) && found.is_err() => {}
                "changed" => assert_eq!(found.unwrap().spec.vcpus, 7, "{name}"),
                _ => assert!(found.is_err(), "{name} is back"),
            }
        }
        host.manager.close().await;
    }
    assert!(acknowledged.len() > 20);
    host.manager = support::open(&host.config).await;
    if pid.is_some() {
        host.done("runs", VmAction::Kill).await;
    }
    host.manager.close().await;
}

fn to_be_deleted(name: &str) -> bool {
    let number = name
        .rsplit('-')
        .next()
        .and_then(|number| number.parse::<u64>().ok());
    number.is_some_and(|number| number % 3 == 0)
}

pub async fn guests_survive_a_manager_that_is_killed() {
    let mut host = host_with("web", programs::adds_one()).await;
    host.manager.close().await;
    let mut process = ManagerProcess::start(&host, "start");
    process.wait_for("succeeded web");
    process.kill();
    host.manager = support::open(&host.config).await;
    let first = host.vm("web").status;
    assert_eq!(first.state, VmState::Running);
    for _ in 0..3 {
        // Only one can have the store open.
        host.manager.close().await;
        let mut process = ManagerProcess::start(&host, "nothing");
        process.wait_for("done");
        process.kill();
        host.manager = support::open(&host.config).await;
        let status = host.vm("web").status;
        assert_eq!((status.state, status.pid), (VmState::Running, first.pid));
        assert_eq!(status.since, first.since);
    }
    let mut console = attach(&host, "web").await;
    console.write_all(b"x").await.unwrap();
    assert_eq!(within(console.read_u8()).await.unwrap(), b'y');
    host.done("web", VmAction::Kill).await;
    host.manager.close().await;
}

pub async fn a_manager_killed_while_it_starts_guests_loses_none() {
    let mut host = host_with("a", programs::obedient()).await;
    host.manager.vm_create(&admin(), spec("b")).await.unwrap();
    host.manager.close().await;
    for round in 0..4 {
        let mut process = ManagerProcess::start(&host, "start");
        match round {
            0 => process.wait_for("accepted a"),
            1 => process.wait_for("accepted b"),
            2 => process.wait_for("open"),
            _ => process.wait_for("done"),
        }
        process.kill();
        host.manager = support::open(&host.config).await;
        for vm in ["a", "b"] {
            let state = host.state(vm);
            assert!(
                !matches!(state, VmState::Starting | VmState::Stopping),
                "{vm}: {state:?}"
            );
            if state == VmState::Running {
                reads(&host, vm, "r").await;
                host.done(vm, VmAction::Stop).await;
            }
        }
        let running = ListParams {
            filter: Some("status eq running".to_owned()),
            ..ListParams::default()
        };
        let running = host.manager.operation_list(&running).unwrap();
        assert_eq!(running.items, [], "interrupted operations have ended");
        host.manager.close().await;
    }
}

pub async fn guests_that_ended_meanwhile_are_told_apart() {
    let mut host = host_with("killed", programs::obedient()).await;
    host.done("killed", VmAction::Start).await;
    let pid = host.vm("killed").status.pid.unwrap();
    host.manager.close().await;
    let process = lodge_host::process::PidFd::open(i32::try_from(pid).unwrap()).unwrap();
    let process = process.into_async().unwrap();
    kill(pid);
    within(process.ended()).await.unwrap();
    host.manager = support::open(&host.config).await;
    let status = host.vm("killed").status;
    assert_eq!(status.state, VmState::Crashed, "{status:?}");
    host.done("killed", VmAction::Start).await;
    host.done("killed", VmAction::Stop).await;
    host.manager.close().await;
}

pub async fn a_shutdown_powers_guests_off() {
    let mut host = host_with("obedient", programs::obedient()).await;
    host.upload("idle", ImageKind::Kernel, &code::kernel(programs::idle()))
        .await;
    let mut stubborn = spec("stubborn");
    stubborn.boot.kernel = Some(support::name("idle"));
    host.manager.vm_create(&admin(), stubborn).await.unwrap();
    host.done("obedient", VmAction::Start).await;
    host.done("stubborn", VmAction::Start).await;
    host.done("stubborn", VmAction::Pause).await;
    reads(&host, "obedient", "r").await;
    within(host.manager.shutdown(std::time::Duration::from_secs(5))).await;
    host.manager = support::open(&host.config).await;
    for vm in ["obedient", "stubborn"] {
        let status = host.vm(vm).status;
        assert_eq!(
            (status.state, status.reason),
            (VmState::Stopped, None),
            "{vm}"
        );
    }
    host.manager.close().await;
}

pub async fn guests_that_shall_start_by_themselves_do_so_once() {
    let mut host = host_with("web", programs::obedient()).await;
    let patch = json!({"autostart": true});
    host.manager
        .vm_merge(&admin(), "web", patch, IfMatch::Any)
        .await
        .unwrap();
    host.restart().await;
    assert_eq!(
        host.state("web"),
        VmState::Stopped,
        "not a boot of the host"
    );
    host.manager.close().await;
    std::fs::remove_dir_all(&host.config.run_dir).unwrap();
    host.manager = support::open(&host.config).await;
    let mut events = host.listen();
    if host.state("web") != VmState::Running {
        state_event(&mut events, "web", VmState::Running).await;
    }
    host.done("web", VmAction::Stop).await;
    host.restart().await;
    assert_eq!(host.state("web"), VmState::Stopped);
    host.manager.close().await;
}
